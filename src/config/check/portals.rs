//! `[[portal]]` and `[metrics]`: where to listen, and what it means when others can reach it.

use std::net::SocketAddr;

use target_core::iscsi::policy::Auth;
use target_core::iscsi::portals::{DEFAULT_PORTAL_GROUP_TAG, NoAddress};
use toml::Spanned;

use super::{number, overlap};
use crate::config::file::{MetricsTable, PortalTable};
use crate::config::problem::Problems;
use crate::config::{ISCSI_PORT, MetricsPlan, PortalPlan, TargetPlan};

/// Largest portal group tag (RFC 7143 §13.9: 16 bits; 0 is not used here).
pub(super) const GROUP_MAX: i64 = 0xffff;

pub(super) fn portals(tables: Vec<PortalTable>, targets: &[TargetPlan], problems: &mut Problems) -> Vec<PortalPlan> {
    let mut portals: Vec<PortalPlan> = Vec::new();
    for table in tables {
        let line = problems.line_of(&table.listen.span());
        let address = table.listen.into_inner().0;
        if !address.ip().is_loopback() && !table.allow_public {
            problems.add(line, not_public(address, targets));
        }
        // On a command line, in a test, any port will do.
        if address.port() == 0 && line.is_some() {
            problems.add(line, format!("{address}: name a port, {ISCSI_PORT} for instance"));
        }
        if let Some(other) = portals.iter().find(|other| overlap(other.address, address)) {
            let place = other.line.map_or(String::new(), |line| format!(" in line {line}"));
            problems.add(
                line,
                format!("{address} is part of the portal {}{place}: keep one", other.address),
            );
        }
        let group = group("group", table.group.as_ref(), problems);
        let announce = table.announce.and_then(|announce| {
            let line = problems.line_of(&announce.span());
            let parsed = announce.into_inner().parse();
            parsed
                .map_err(|error: NoAddress| problems.add(line, error.to_string()))
                .ok()
        });
        portals.push(PortalPlan {
            address,
            group,
            announce,
            line,
        });
    }
    portals
}

/// A portal group tag.
pub(super) fn group(key: &str, value: Option<&Spanned<i64>>, problems: &mut Problems) -> u16 {
    let usual = i64::from(DEFAULT_PORTAL_GROUP_TAG);
    u16::try_from(number(key, value, usual, 1..=GROUP_MAX, problems)).unwrap_or(DEFAULT_PORTAL_GROUP_TAG)
}

/// Why an address that others reach needs to be allowed in so many words.
fn not_public(address: SocketAddr, targets: &[TargetPlan]) -> String {
    let reached: Vec<&TargetPlan> = targets.iter().filter(|target| !target.policy.tunnel_only).collect();
    let open = reached.iter().filter(|target| target.policy.auth == Auth::None).count();
    let whoever = if !targets.is_empty() && reached.is_empty() {
        "though every target is for tunnels only".to_owned()
    } else if open == targets.len() {
        "and whoever reaches it reads and writes every LUN, unencrypted and without a password".to_owned()
    } else if open > 0 {
        format!(
            "and whoever reaches it reads and writes the LUNs of {open} of {} targets, unencrypted and without a password",
            targets.len()
        )
    } else {
        "and although a login takes a secret (CHAP), everything after it is unencrypted, to be read and changed on the way"
            .to_owned()
    };
    format!(
        "{address} can be reached by others, {whoever}: listen on 127.0.0.1 and use farlun connect, or write \
         allow_public = true below this line"
    )
}

/// `[metrics]`
pub(super) fn metrics(
    table: Option<Spanned<MetricsTable>>,
    portals: &[PortalPlan],
    problems: &mut Problems,
) -> Option<MetricsPlan> {
    let table = table?.into_inner();
    let line = problems.line_of(&table.listen.span());
    let address = table.listen.into_inner();
    if !address.ip().is_loopback() && !table.allow_public {
        problems.add(
            line,
            format!(
                "{address} can be reached by others, who then read the names of targets and initiators and how much they \
                 do: listen on 127.0.0.1, or write allow_public = true below this line"
            ),
        );
    }
    if address.port() == 0 {
        problems.add(line, format!("{address}: name a port, 9260 for instance"));
    }
    if let Some(portal) = portals.iter().find(|portal| overlap(portal.address, address)) {
        problems.add(
            line,
            format!(
                "{address} is part of the portal {}: choose another port",
                portal.address
            ),
        );
    }
    Some(MetricsPlan { address, line })
}
