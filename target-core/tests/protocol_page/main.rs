//! `docs/protocol.md` and the code say the same: every row of every table on the page is tried out, and everything
//! that the code has is on the page.
#![allow(unreachable_pub, reason = "modules of one test use each other's parts")]

mod absent;
mod attentions;
#[path = "../chap_support/mod.rs"]
mod chap_support;
mod commands;
mod faults;
mod keys;
mod limits;
mod login;
mod logs;
mod management;
mod modes;
mod page;
mod pdus;
mod provisioning;
mod provoke;
mod reservations;
mod samples;
#[path = "../scsi_support/mod.rs"]
mod scsi_support;
mod senses;
mod source;
#[path = "../support/mod.rs"]
mod support;
mod unasked;
mod units;
mod vpd;

/// A table that no test reads would be a promise that nobody keeps.
#[test]
fn every_table_of_the_page_has_a_test() {
    let mut tested = [
        keys::HEADING,
        login::HEADING,
        pdus::REQUESTS,
        pdus::ANSWERS,
        pdus::REASONS,
        unasked::HEADING,
        unasked::EVENTS,
        management::HEADING,
        commands::OFFERED,
        commands::REFUSED,
        absent::HEADING,
        limits::HEADING,
        provisioning::HEADING,
        reservations::HEADING,
        vpd::HEADING,
        modes::HEADING,
        logs::HEADING,
        senses::STATUSES,
        senses::SENSES,
        attentions::ATTENTIONS,
    ];
    let mut on_page: Vec<String> = page::tables().into_iter().map(|table| table.heading).collect();
    tested.sort_unstable();
    on_page.sort_unstable();
    assert_eq!(on_page, tested);
}
