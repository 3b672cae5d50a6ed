//! A replica that answers clients wrongly, or not at all, and points them at the wrong leader and cut.

use polder_types::{Answer, Blob, Failure, NodeFrame, Seq, View};

use super::{Actor, Plot};

/// See the module.
pub(super) struct WrongReplies;

impl Actor for WrongReplies {
    fn name(&self) -> &'static str {
        "wrong-replies"
    }

    fn answer(&mut self, plot: &mut Plot<'_>, frame: NodeFrame) -> Option<NodeFrame> {
        match frame {
            NodeFrame::Replies(mut replies) => {
                for reply in &mut replies {
                    reply.answer = match plot.random.range(0, 3) {
                        0 => Answer::Failed(Failure::NoSession),
                        1 => Answer::Done(Blob::copy(&[0, 1, 0])),
                        2 => Answer::Closed,
                        _ => continue,
                    };
                }
                plot.random.chance(800).then_some(NodeFrame::Replies(replies))
            }
            NodeFrame::At { epoch, .. } => {
                let view = View(plot.random.range(0, 50));
                Some(NodeFrame::At { epoch, view, cut: Seq(plot.random.range(0, 1_000)) })
            }
            other => Some(other),
        }
    }
}
