//! What is said over the control socket: one line of JSON for a request, one for its answer. Bytes in, typed values
//! out; no sockets here.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Edit;

/// The version of what is said here. A daemon that speaks another one says so.
pub(crate) const VERSION: u32 = 1;
/// Longest request, in bytes without its newline.
pub(crate) const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Longest answer that a client takes, in bytes.
pub(crate) const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// What the daemon is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Action {
    /// How is everything? Answered by a [`Status`].
    Status {},
    /// All targets and LUNs. Answered by [`Targets`].
    Targets {},
    /// All sessions. Answered by [`Sessions`].
    Sessions {},
    /// End a session. Answered by [`Applied`].
    DropSession {
        /// Its handle.
        tsih: u16,
    },
    /// Change the configuration and what is served. Answered by [`Applied`].
    Edit {
        /// The change.
        edit: Edit,
        /// Even if sessions lose a LUN, or data is cut off.
        force: bool,
        /// Leave the file as it is: the next reload or start undoes the change.
        temporary: bool,
        /// Only tell what would change.
        dry_run: bool,
    },
    /// Look anew at the size of a device. Answered by [`Applied`].
    Rescan {
        /// Name of the target.
        target: String,
        /// Its LUN.
        lun: u16,
        /// Even if it has become smaller.
        force: bool,
        /// Only tell what would change.
        #[serde(default)]
        dry_run: bool,
    },
    /// Read the configuration file anew. Answered by [`Applied`].
    Reload {
        /// Even if sessions lose a LUN, or data is cut off.
        force: bool,
        /// Only tell what would change.
        dry_run: bool,
    },
}

/// A request as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(rename = "do")]
    action: Action,
}

/// The version alone, which is looked at first: what else there is depends on it.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// The request is wrong: no such target, a value that cannot be, a problem in the file.
    Wrong,
    /// It is right, and refused without `force`: sessions or data are at stake.
    AtStake,
    /// It was tried and did not work.
    Failed,
}

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) why: Why,
    /// The same for people, with what to do next.
    pub(crate) text: String,
}

impl Refusal {
    /// The request is wrong.
    pub(crate) fn wrong(error: impl ToString) -> Self {
        let text = error.to_string();
        Self { why: Why::Wrong, text }
    }

    /// It did not work.
    pub(crate) fn failed(error: impl ToString) -> Self {
        let text = error.to_string();
        Self { why: Why::Failed, text }
    }
}

/// An answer as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer<T> {
    Ok(T),
    Error(Refusal),
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// Each change, for people.
    pub(crate) changes: Vec<String>,
    /// What else there is to know: what needs a restart, what goes with it.
    pub(crate) notes: Vec<String>,
    /// The number of a LUN that was created without one.
    pub(crate) lun: Option<u16>,
}

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the program.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Seconds it has been serving.
    pub(crate) uptime_s: u64,
    /// The configuration file, if there is one.
    pub(crate) configuration: Option<String>,
    /// Whether there are temporary changes, which a reload undoes.
    pub(crate) temporary_changes: bool,
    /// Where it listens.
    pub(crate) portals: Vec<PortalInfo>,
    /// The socket of tunnels.
    pub(crate) tunnel_socket: Option<String>,
    /// Where metrics are.
    pub(crate) metrics: Option<String>,
    /// How many targets there are.
    pub(crate) targets: usize,
    /// How many LUNs.
    pub(crate) luns: usize,
    /// How many of them are offline.
    pub(crate) luns_offline: usize,
    /// How many sessions.
    pub(crate) sessions: usize,
}

/// A portal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalInfo {
    /// Where it listens.
    pub(crate) address: String,
    /// Its portal group tag.
    pub(crate) group: u16,
    /// `network` or `tunnel`.
    pub(crate) way: String,
}

/// All targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// By name.
    pub(crate) targets: Vec<TargetInfo>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetInfo {
    /// iSCSI name.
    pub(crate) name: String,
    /// TargetAlias.
    pub(crate) alias: Option<String>,
    /// `none` or `chap`.
    pub(crate) auth: String,
    /// Who may log in by CHAP.
    pub(crate) users: Vec<String>,
    /// The user that stands for the target itself.
    pub(crate) mutual: Option<String>,
    /// Whether only tunnels lead to it.
    pub(crate) tunnel_only: bool,
    /// Tags of the portal groups that do; empty for all.
    pub(crate) portal_groups: Vec<u16>,
    /// Rules that say who may do what, those of LUNs included.
    pub(crate) rules: usize,
    /// Sessions now.
    pub(crate) sessions: usize,
    /// Its LUNs.
    pub(crate) luns: Vec<LunInfo>,
}

/// A LUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LunInfo {
    /// Its number.
    pub(crate) lun: u16,
    /// `file`, `device` or `memory`.
    pub(crate) medium: String,
    /// Where it is.
    pub(crate) path: Option<String>,
    /// Its size, while it is online.
    pub(crate) size_bytes: Option<u64>,
    /// Logical block in bytes.
    pub(crate) block_size_bytes: u32,
    /// Unit serial number.
    pub(crate) serial: String,
    /// Whether it is in service.
    pub(crate) online: bool,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
    /// Whether several initiator names may use it at a time.
    pub(crate) shared: bool,
    /// Whether its medium can be ejected.
    pub(crate) removable: bool,
    /// Whether writes may wait in a cache until they are flushed.
    pub(crate) write_back: bool,
    /// Whether space is taken only when it is written to.
    pub(crate) thin: Option<bool>,
    /// The initiator that holds it, if one does and it is not shared.
    pub(crate) holder: Option<String>,
    /// Bound on commands per second.
    pub(crate) iops_max: Option<u64>,
    /// Bound on bytes per second.
    pub(crate) bytes_per_second_max: Option<u64>,
}

/// All sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// By target and handle.
    pub(crate) sessions: Vec<SessionInfo>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionInfo {
    /// Name of the target.
    pub(crate) target: String,
    /// The session's handle.
    pub(crate) tsih: u16,
    /// iSCSI name of the initiator.
    pub(crate) initiator: String,
    /// Its part of the session identifier, in hex.
    pub(crate) isid: String,
    /// Where it comes from.
    pub(crate) peer: String,
    /// `network` or `tunnel`.
    pub(crate) way: String,
    /// Unix name of who opened the tunnel.
    pub(crate) tunnel_user: Option<String>,
    /// Name proved by CHAP.
    pub(crate) chap_user: Option<String>,
    /// Tag of the portal group it came to.
    pub(crate) portal_group: u16,
    /// When it logged in, in seconds since 1970.
    pub(crate) since_unix_s: u64,
    /// Seconds since then.
    pub(crate) age_s: u64,
    /// What was negotiated: key and value, as RFC 7143 has them.
    pub(crate) negotiated: Vec<(String, String)>,
    /// Bytes received.
    pub(crate) received_bytes: u64,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
    /// Commands answered.
    pub(crate) commands: u64,
    /// Commands at work.
    pub(crate) queue_depth: u64,
    /// The most that were at work at one time.
    pub(crate) queue_depth_max: u64,
    /// Half of all commands took at most this long, in microseconds.
    pub(crate) latency_p50_us: Option<u64>,
    /// 99 of a hundred.
    pub(crate) latency_p99_us: Option<u64>,
    /// All of them.
    pub(crate) latency_max_us: Option<u64>,
    /// Headers and data with a wrong digest.
    pub(crate) digest_errors: u64,
}

/// A request as a line, without the newline.
///
/// # Errors
/// It is longer than a daemon takes.
pub(crate) fn write_request(action: &Action) -> Result<String, Refusal> {
    let written = Written {
        version: VERSION,
        action: action.clone(),
    };
    let line = serde_json::to_string(&written).map_err(Refusal::failed)?;
    if line.len() > REQUEST_MAX_BYTES {
        return Err(Refusal::wrong(format!(
            "that is too much for one request ({REQUEST_MAX_BYTES} bytes): edit the file, then farlun reload"
        )));
    }
    Ok(line)
}

/// The request in a line.
///
/// # Errors
/// What is wrong with it, for the client.
pub(crate) fn read_request(line: &[u8]) -> Result<Action, Refusal> {
    let not_ours = |error: serde_json::Error| Refusal::wrong(format!("this is no request of farlun: {error}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(not_ours)?;
    if version != VERSION {
        return Err(Refusal::wrong(format!(
            "the daemon speaks version {VERSION} of the control protocol, not {version}: use the farlun that it is \
             (restart it after an upgrade)"
        )));
    }
    serde_json::from_slice::<Written>(line)
        .map(|written| written.action)
        .map_err(not_ours)
}

/// An answer as a line, with its newline.
pub(crate) fn write_answer(answer: Result<serde_json::Value, Refusal>) -> String {
    let answer = match answer {
        Ok(value) => Answer::Ok(value),
        Err(refusal) => Answer::Error(refusal),
    };
    // Strings and numbers only: nothing in it can fail.
    let mut line = serde_json::to_string(&answer).unwrap_or_default();
    line.push('\n');
    line
}

/// The answer in a line.
///
/// # Errors
/// What the daemon has refused, or that it does not speak as we do.
pub(crate) fn read_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, Refusal> {
    match serde_json::from_slice::<Answer<T>>(line) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(refusal)) => Err(refusal),
        Err(error) => Err(Refusal::failed(format!("this is no answer of farlun: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Keys, Setting};

    fn create(name: &str) -> Action {
        let keys = Keys::from([
            ("memory".to_owned(), Some(Setting::Text("1MiB".to_owned()))),
            ("read_only".to_owned(), Some(Setting::Flag(true))),
            ("iops_max".to_owned(), Some(Setting::Number(7))),
            ("serial".to_owned(), None),
        ]);
        Action::Edit {
            edit: Edit::CreateLun {
                target: name.to_owned(),
                lun: None,
                keys,
            },
            force: false,
            temporary: true,
            dry_run: false,
        }
    }

    #[test]
    fn requests_come_back_as_they_were() {
        let all = [
            Action::Status {},
            Action::Targets {},
            Action::Sessions {},
            Action::DropSession { tsih: 7 },
            create("iqn.2026-11.com.example:disk"),
            Action::Rescan {
                target: "t".to_owned(),
                lun: 3,
                force: true,
                dry_run: false,
            },
            Action::Reload {
                force: false,
                dry_run: true,
            },
        ];
        for action in all {
            let line = write_request(&action).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(read_request(line.as_bytes()), Ok(action));
        }
        assert_eq!(
            write_request(&Action::Status {}).unwrap(),
            r#"{"version":1,"do":{"status":{}}}"#,
            "what scripts may rely on"
        );
        assert_eq!(
            write_request(&create(&"x".repeat(REQUEST_MAX_BYTES))).unwrap_err().why,
            Why::Wrong
        );
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        for (line, part) in [
            ("", "no request"),
            ("[]", "no request"),
            (r#"{"do":{"status":{}}}"#, "version"),
            (r#"{"version":2,"do":{"dance":{}}}"#, "version 1"),
            (r#"{"version":1,"do":{"dance":{}}}"#, "dance"),
            (r#"{"version":1,"do":{"status":{"x":1}}}"#, "unknown field"),
            (r#"{"version":1,"do":{"status":{}},"sudo":true}"#, "sudo"),
            (r#"{"version":1,"do":{"drop-session":{"tsih":70000}}}"#, "70000"),
        ] {
            let refusal = read_request(line.as_bytes()).unwrap_err();
            assert_eq!(refusal.why, Why::Wrong);
            assert!(refusal.text.contains(part), "{line}: {refusal}");
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let applied = Applied {
            changes: vec!["a\nb".to_owned()],
            ..Applied::default()
        };
        let line = write_answer(Ok(serde_json::to_value(&applied).unwrap()));
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(read_answer::<Applied>(line.as_bytes()), Ok(applied));
        let refusal = Refusal {
            why: Why::AtStake,
            text: "no".to_owned(),
        };
        let line = write_answer(Err(refusal.clone()));
        assert_eq!(read_answer::<Applied>(line.as_bytes()), Err(refusal));
        assert_eq!(read_answer::<Applied>(b"{}").unwrap_err().why, Why::Failed);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_parsers_down(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _any = read_request(&bytes);
            let _any = read_answer::<Status>(&bytes);
        }

        #[test]
        fn nor_do_requests_with_something_changed(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
            let mut line = write_request(&create("iqn.2026-11.com.example:disk")).unwrap().into_bytes();
            let at = at % line.len();
            line[at] = byte;
            line.truncate(cut.max(1));
            if let Ok(action) = read_request(&line) {
                // What is understood can be said again.
                prop_assert_eq!(read_request(write_request(&action).unwrap().as_bytes()), Ok(action));
            }
        }

        #[test]
        fn depth_is_bounded(depth in 200_usize..20_000) {
            let line = format!("{{\"version\":1,\"do\":{}", "[".repeat(depth));
            prop_assert!(read_request(line.as_bytes()).is_err());
        }
    }
}
