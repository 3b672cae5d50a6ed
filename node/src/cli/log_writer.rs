//! The way of the log to standard error: a thread of its own writes, so that who reads slowly, or not at all, holds up no
//! vote (promise 4). What finds the queue full is dropped, and their number is said once there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Events that wait to be written.
const EVENTS_MAX: usize = 1_024;
/// How long the end of the process waits for what is not written yet.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Hands events to the thread that writes them.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Job {
    Write(Vec<u8>),
    /// All before it is written: tell.
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread; it ends with the last handle.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(out: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(EVENTS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Self { jobs, dropped: dropped.clone() };
        let run = move || write_all(out, format, &waiting, &dropped);
        std::thread::Builder::new().name("polder-says".to_owned()).spawn(run)?;
        Ok(writer)
    }

    /// Waits until all is written, but not long: somebody who does not read must not keep the process from its end.
    pub(super) fn flush(&self) {
        let (written, told) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(written)).is_ok() {
            // Late or gone: either way there is nothing more to be done.
            let _late = told.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write_all(mut out: impl Write, format: LogFormat, waiting: &Receiver<Job>, dropped: &AtomicU64) {
    while let Ok(job) = waiting.recv() {
        // When nobody reads any more there is nobody to tell.
        match job {
            Job::Write(event) => {
                let _unread = out.write_all(&event);
            }
            Job::Flush(written) => {
                let _gone = written.try_send(());
            }
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let why = "they were not read as fast as they came";
            let _unread = match format {
                LogFormat::Human => writeln!(out, "{count} events are missing here: {why}"),
                LogFormat::Json => {
                    writeln!(out, r#"{{"level":"WARN","message":"events are missing here: {why}","events":{count}}}"#)
                }
            };
        }
    }
}

impl Write for LogWriter {
    /// Takes an event; they come whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(Job::Write(event.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A reader that reads nothing until it is told to, and then says what it read.
    struct Stalled {
        told: Option<Receiver<()>>,
        read: Sender<String>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(told) = self.told.take() {
                told.recv().map_err(io::Error::other)?;
            }
            self.read.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_does_not_read_holds_up_nobody_and_hears_what_was_missed() -> Result<(), Box<dyn std::error::Error>> {
        let (tell, told) = channel();
        let (read, events) = channel();
        let mut writer = LogWriter::start(Stalled { told: Some(told), read }, LogFormat::Human)?;
        for _ in 0..3 * EVENTS_MAX {
            writer.write_all(b"event\n")?;
        }
        tell.send(())?;
        writer.flush();
        drop(writer);
        let read: Vec<String> = events.iter().collect();
        let written = read.iter().filter(|text| *text == "event\n").count();
        assert!((EVENTS_MAX..2 * EVENTS_MAX).contains(&written), "{written}");
        let said: String = read.iter().filter(|text| *text != "event\n").map(String::as_str).collect();
        assert!(said.starts_with(&format!("{} events are missing here", 3 * EVENTS_MAX - written)), "{said}");
        Ok(())
    }

    #[test]
    fn what_was_said_before_the_end_is_written_before_it() -> Result<(), Box<dyn std::error::Error>> {
        let (read, events) = channel();
        let mut writer = LogWriter::start(Stalled { told: None, read }, LogFormat::Json)?;
        writer.write_all(b"last words\n")?;
        writer.flush();
        assert_eq!(events.try_recv()?, "last words\n");
        Ok(())
    }
}
