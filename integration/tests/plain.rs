//! A real Linux initiator over a plain network: discovery, login, file system, logout; a kernel log without trouble, and
//! nothing malformed on the wire.

use anyhow::Result;
use integration::capture::{Capture, Dissection};
use integration::guest::{self, Outcome};
use integration::klog;
use integration::netns::Namespace;
use integration::target::{self, Kind, Spec, Target};

const PORT: u16 = 3260;

/// A target, and a guest on the other end of a cable.
fn host() -> Result<(Namespace, Target)> {
    let ns = Namespace::new()?;
    ns.add_tap(guest::TAP, "10.99.0.1/24")?;
    let target = Spec::new(Kind::from_env()?, &format!("10.99.0.1:{PORT}")).start(&ns)?;
    Ok((ns, target))
}

fn story(ns: &Namespace, mib: &str) -> Result<Outcome> {
    guest::run(
        ns,
        "plain.sh",
        &[
            ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
            ("TARGET", target::NAME),
            ("ADDRESS", "10.99.0.2/24"),
            ("PORTAL", &format!("10.99.0.1:{PORT}")),
            ("MIB", mib),
        ],
    )
}

#[test]
fn a_kernel_initiator_uses_the_disk_and_logs_no_trouble() -> Result<()> {
    let (ns, target) = host()?;
    let outcome = story(&ns, "64")?;
    println!("{}\n{}", outcome.output, outcome.kernel_log);
    assert!(
        outcome.kernel_log.contains("Attached SCSI disk"),
        "the log shows no disk"
    );
    assert_eq!(klog::trouble(&outcome.kernel_log), Vec::<&str>::new());
    target.stop()
}

/// RFC 7143 §11.2.1.2: what a login, discovery, a few commands and a logout cannot do without.
const EXPECTED_OPCODES: [(u8, &str); 11] = [
    (0x01, "SCSI Command"),
    (0x03, "Login Request"),
    (0x04, "Text Request"),
    (0x05, "Data-Out"),
    (0x06, "Logout Request"),
    (0x21, "SCSI Response"),
    (0x23, "Login Response"),
    (0x24, "Text Response"),
    (0x25, "Data-In"),
    (0x26, "Logout Response"),
    (0x31, "Ready To Transfer"),
];

#[test]
fn tshark_finds_nothing_malformed_on_the_wire() -> Result<()> {
    let (ns, target) = host()?;
    let capture = Capture::start(&ns, guest::TAP)?;
    story(&ns, "8")?;
    let seen = Dissection::of(&capture.finish()?, PORT)?;
    println!("{} PDUs", seen.opcodes.len());
    assert_eq!(seen.complaints, Vec::<String>::new());
    assert!(seen.opcodes.len() > 200, "only {} PDUs", seen.opcodes.len());
    for (opcode, name) in EXPECTED_OPCODES {
        assert!(seen.opcodes.contains(&opcode), "no {name} seen");
    }
    target.stop()
}
