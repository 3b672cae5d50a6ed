//! `polder kv resolve`: what became of a command whose outcome was unknown.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use polder_client::{Builder, Resolution, Token};
use polder_kv::{Kv, Outcome, Reply};
use polder_node::cli::{say, tell};
use serde_json::{Value, json};

use crate::common::OUTCOME_UNKNOWN;
use crate::kv::{key_value, printable, revision};

/// Prints the token of an outcome that is unknown, and what to do with it.
pub(crate) fn print_token(token: &Token, why: &str, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return say(json!({"outcome": "unknown", "why": why, "token": token}));
    }
    tell(format_args!(
        "its token, with which `kv resolve` tells what became of it, while its session is open:\n{token}"
    ));
    Ok(())
}

/// Asks for what became of a command, and prints it. The exit status is that of the outcome.
pub(crate) async fn run(builder: Builder, token: &str, is_json: bool) -> anyhow::Result<ExitCode> {
    let token = read(token)?;
    let said = words(builder.resolve::<Kv>(&token).await?);
    if is_json {
        say(said.json)?;
    } else {
        say(said.words)?;
    }
    Ok(said.status)
}

/// The token of an argument, or of standard input.
fn read(argument: &str) -> anyhow::Result<Token> {
    if argument != "-" {
        return Ok(argument.parse()?);
    }
    let mut text = String::new();
    let bytes_max = Token::TEXT_BYTES_MAX as u64 + 1;
    std::io::stdin().lock().take(bytes_max).read_to_string(&mut text).context("standard input")?;
    Ok(text.parse()?)
}

/// What is said of a resolution.
struct Said {
    words: String,
    json: Value,
    status: ExitCode,
}

fn words(resolution: Resolution<Reply>) -> Said {
    let executed = |words: String, reply: Value| Said {
        words: format!("executed{words}"),
        json: json!({"outcome": "executed", "reply": reply}),
        status: ExitCode::SUCCESS,
    };
    let not_executed = |why: Option<String>| Said {
        words: format!(
            "not executed, and never will be{}",
            why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
        ),
        json: json!({"outcome": "not_executed", "why": why}),
        status: ExitCode::from(1),
    };
    match resolution {
        Resolution::Executed(Reply::Done(outcome)) => {
            let (words, json) = outcome_words(&outcome);
            executed(format!(": {words}"), json)
        }
        Resolution::Executed(Reply::Transaction { succeeded, outcomes }) => {
            let word = if succeeded { "all comparisons held" } else { "not all comparisons held" };
            let outcomes: Vec<Value> = outcomes.iter().map(|outcome| outcome_words(outcome).1).collect();
            executed(format!(": {word}"), json!({"succeeded": succeeded, "outcomes": outcomes}))
        }
        Resolution::Executed(Reply::Refused(why)) => not_executed(Some(why.to_string())),
        Resolution::ExecutedReplyNotKept => executed("; its reply is no longer kept".to_owned(), Value::Null),
        Resolution::NotExecuted(why) => not_executed(why.map(|why| why.to_string())),
        Resolution::Forgotten(why) => forgotten(&why.to_string()),
        _ => forgotten("this program is older than the client that it is made with"),
    }
}

fn forgotten(why: &str) -> Said {
    Said {
        words: format!("nobody can tell any more: {why}; read the key"),
        json: json!({"outcome": "forgotten", "why": why}),
        status: ExitCode::from(OUTCOME_UNKNOWN),
    }
}

fn outcome_words(outcome: &Outcome) -> (String, Value) {
    match outcome {
        Outcome::Written(written) => {
            let words = format!("written by command {}, version {}", written.modified, written.version);
            (words, json!({"revision": revision(written)}))
        }
        Outcome::Differs(found) => {
            let found = found
                .as_ref()
                .map(|found| json!({"value": printable(&found.value), "revision": revision(&found.revision)}));
            ("another value was there, and stayed".to_owned(), json!({"swapped": false, "found": found}))
        }
        Outcome::Deleted(Some(_)) => ("deleted".to_owned(), json!({"deleted": true})),
        Outcome::Deleted(None) => ("nothing was there to delete".to_owned(), json!({"deleted": false})),
        Outcome::Value(found) => {
            let value = found.as_ref().map(|found| printable(&found.value));
            ("it only read".to_owned(), json!({"value": value}))
        }
        Outcome::Range { entries, .. } => {
            let entries: Vec<Value> = entries.iter().map(key_value).collect();
            ("it only read".to_owned(), json!({"entries": entries}))
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_client::Unknown;
    use polder_kv::Revision;
    use polder_types::{Failure, Position, Seq};

    use super::*;

    #[test]
    fn each_resolution_has_its_words_its_json_and_its_exit_status() {
        let at = Position { slot: Seq(7), index: 1 };
        let written = Outcome::Written(Revision { created: at, modified: at, version: 1 });
        let full = Resolution::NotExecuted(Some(Failure::StateFull));
        for (resolution, begins, outcome, status) in [
            (Resolution::Executed(Reply::Done(written)), "executed: written by command 7.1", "executed", 0),
            (Resolution::Executed(Reply::Done(Outcome::Deleted(None))), "executed: nothing was there", "executed", 0),
            (Resolution::ExecutedReplyNotKept, "executed; its reply", "executed", 0),
            (Resolution::Executed(Reply::Refused(polder_kv::KvError::EmptyKey)), "not executed", "not_executed", 1),
            (Resolution::NotExecuted(None), "not executed, and never will be", "not_executed", 1),
            (full, "not executed, and never will be: the state is full", "not_executed", 1),
            (Resolution::Forgotten(Unknown::SessionGone), "nobody can tell any more", "forgotten", 3),
        ] {
            let said = words(resolution);
            assert!(said.words.starts_with(begins), "{}", said.words);
            assert_eq!(said.json["outcome"], json!(outcome));
            assert_eq!(format!("{:?}", said.status), format!("{:?}", ExitCode::from(status)));
        }
    }

    #[test]
    fn what_is_no_token_is_an_error() {
        assert!(read("lamp").is_err_and(|error| error.to_string().contains("begins with polder1.")));
    }
}
