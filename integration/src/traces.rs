//! What a host looks like to those who come after: interfaces, addresses, routes, rules, sockets, and what a daemon has
//! open.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;
use crate::process;

/// Sockets that somebody has: listening, connected, TCP, UDP, raw, packet and Unix. Those that are closed and wait for the
/// other end's last word belong to nobody, and go by themselves when it does not come.
const SOCKETS: &str = r#"ss -HantuwO | awk '$2 !~ /^(FIN-WAIT-[12]|LAST-ACK|CLOSING|TIME-WAIT)$/ {print "socket", $1, $2, $5, $6}'
ss -HalxO | awk '{print "socket", $1, $2, $5}'
ss -Ha0O | awk '{print "socket", $1, $2, $5}'"#;

/// Addresses and routes without what counts down or counts up.
const NETWORK: &str = "ip -o link | sed 's/^[0-9]*/link/'
ip -o addr | sed 's/^[0-9]*/addr/'
ip route show table all | sed 's/^/route /'
ip -6 route show table all | sed 's/^/route6 /'
ip rule | sed 's/^/rule /'";

/// A picture of a host: each line and how often it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeMap<String, usize>);

impl Traces {
    /// Look at `ns`, and at the file descriptors of the processes `daemons`.
    ///
    /// # Errors
    /// A tool is missing or a daemon gone.
    pub fn of(ns: &Namespace, daemons: &[u32]) -> Result<Self> {
        let mut lines = BTreeMap::new();
        let mut note = |line: String| *lines.entry(line).or_insert(0) += 1;
        ns.sh(&format!("{NETWORK}\n{SOCKETS}"))?
            .lines()
            .for_each(|line| note(line.trim_end().to_owned()));
        for pid in daemons {
            let folder = format!("/proc/{pid}/fd");
            for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
                // One that was closed since the folder was read.
                let Ok(target) = fs::read_link(entry?.path()) else {
                    continue;
                };
                note(format!("fd of {pid}: {}", kind_of(&target.to_string_lossy())));
            }
        }
        Ok(Self(lines))
    }

    /// What is more (`+`) or fewer (`-`) in `other`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self
            .0
            .keys()
            .chain(other.0.keys().filter(|line| !self.0.contains_key(*line)))
        {
            let [before, after] = [self, other].map(|traces| traces.0.get(line).copied().unwrap_or(0));
            if before != after {
                lines.push(format!(
                    "{} {line} ({before}, then {after})",
                    if after > before { '+' } else { '-' }
                ));
            }
        }
        lines
    }

    /// Wait until `ns` looks like this again.
    ///
    /// # Errors
    /// What still differs after `limit`.
    pub fn wait_for_return(&self, ns: &Namespace, daemons: &[u32], limit: Duration) -> Result<()> {
        let mut last = Vec::new();
        let waited = process::wait_until("the host is as it was", limit, || {
            last = self.differences(&Self::of(ns, daemons)?);
            Ok(last.is_empty().then_some(()))
        });
        if let Err(error) = waited {
            bail!("{error}:\n{}", last.join("\n"));
        }
        Ok(())
    }
}

/// A descriptor's target without the number that is different each time: `socket:[123]` is a socket.
fn kind_of(target: &str) -> &str {
    target.split_once(":[").map_or(target, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_fewer_are_told_apart() {
        let traces = |lines: &[(&str, usize)]| Traces(lines.iter().map(|(l, n)| ((*l).to_owned(), *n)).collect());
        let before = traces(&[("link lo", 1), ("fd socket", 2), ("addr a", 1)]);
        let after = traces(&[("link lo", 1), ("fd socket", 3), ("addr b", 1)]);
        assert_eq!(
            before.differences(&after),
            [
                "- addr a (1, then 0)",
                "+ fd socket (2, then 3)",
                "+ addr b (0, then 1)"
            ]
        );
        assert_eq!(before.differences(&before), Vec::<String>::new());
        assert_eq!(kind_of("socket:[77]"), "socket");
        assert_eq!(kind_of("/dev/net/tun"), "/dev/net/tun");
    }
}
