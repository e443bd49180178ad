//! A real Linux initiator over a plain network: discovery, login, file system, logout; a kernel log without trouble, and
//! nothing malformed on the wire.

use anyhow::Result;
use integration::capture::{Capture, Dissection};
use integration::netns::Namespace;
use integration::story::{self, HOST, PORT};
use integration::target::{Kind, Spec, Target};

fn host_with_target() -> Result<(Namespace, Target)> {
    let ns = story::host()?;
    let target = Spec::new(Kind::from_env()?, &format!("{HOST}:{PORT}")).start(&ns)?;
    Ok((ns, target))
}

#[test]
fn a_kernel_initiator_uses_the_disk_and_logs_no_trouble() -> Result<()> {
    let (ns, target) = host_with_target()?;
    let outcome = story::run(&ns, "plain.sh", 64, &[])?;
    story::check_kernel_log(&outcome)?;
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
    let (ns, target) = host_with_target()?;
    let capture = Capture::start(&ns, PORT)?;
    story::run(&ns, "plain.sh", 8, &[])?;
    let seen = Dissection::of(&capture.finish()?, PORT)?;
    println!("{} PDUs", seen.opcodes.len());
    assert_eq!(seen.complaints, Vec::<String>::new());
    assert!(seen.opcodes.len() > 200, "only {} PDUs", seen.opcodes.len());
    for (opcode, name) in EXPECTED_OPCODES {
        assert!(seen.opcodes.contains(&opcode), "no {name} seen");
    }
    target.stop()
}
