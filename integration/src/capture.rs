//! Packets on an interface, and what tshark makes of the iSCSI in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::paths;
use crate::process::{self, Process};

const START_LIMIT: Duration = Duration::from_secs(10);
/// When nothing was written for so long, all that was captured is in the file: the kernel hands over a buffer that is
/// not full after a second at most.
const QUIET: Duration = Duration::from_millis(1200);
/// A few megabytes take tshark two seconds.
const DISSECT_LIMIT: Duration = Duration::from_secs(120);

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Capture TCP on `port` in `ns`, on all interfaces: on a guest's own, which goes down with the guest, the last
    /// packets are at times not seen.
    ///
    /// # Errors
    /// tcpdump is missing or does not start.
    pub fn start(ns: &Namespace, port: u16) -> Result<Self> {
        let file = ns.dir().join("capture.pcap");
        let mut command = ns.command(paths::tool("tcpdump")?)?;
        command.args("-i any -U -s 0 -B 65536 -Z root -w".split(' ')).arg(&file);
        command.arg(format!("tcp port {port}"));
        let mut tcpdump = Process::spawn("tcpdump", &mut command, &ns.dir().join("tcpdump.log"))?;
        tcpdump.wait_for_line("tcpdump: listening", START_LIMIT)?;
        Ok(Self { tcpdump, file })
    }

    /// End it; the file lives as long as its namespace.
    ///
    /// # Errors
    /// Packets were lost, so that the file is not the whole story.
    pub fn finish(mut self) -> Result<PathBuf> {
        let written = || fs::metadata(&self.file).map(|file| file.len());
        let mut before = written()?;
        loop {
            std::thread::sleep(QUIET);
            let now = written()?;
            if now == before {
                break;
            }
            before = now;
        }
        self.tcpdump.stop()?;
        let log = self.tcpdump.log();
        ensure!(
            log.contains("\n0 packets dropped by kernel"),
            "the capture is not complete:\n{log}"
        );
        Ok(self.file.clone())
    }
}

/// What tshark saw of iSCSI.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dissection {
    /// Opcode of each PDU in the order seen, without the immediate bit.
    pub opcodes: Vec<u8>,
    /// What it found malformed, or said an error about: frame and words.
    pub complaints: Vec<String>,
}

impl Dissection {
    /// Read `capture`, taking `port` for iSCSI.
    ///
    /// # Errors
    /// tshark is missing or cannot read the file.
    pub fn of(capture: &Path, port: u16) -> Result<Self> {
        let mut command = process::mortal(paths::tool("tshark")?)?;
        command
            .arg("-r")
            .arg(capture)
            .args(["-n", "-d", &format!("tcp.port=={port},iscsi")]);
        // Severity 0x00800000 is "error" (wireshark epan/proto.h, PI_ERROR); retransmissions and the like are below it.
        command.args([
            "-Y",
            "iscsi || _ws.malformed || _ws.expert.severity >= 0x00800000",
            "-T",
            "fields",
        ]);
        for field in FIELDS {
            command.args(["-e", field]);
        }
        parse(&process::run("tshark", &mut command, DISSECT_LIMIT)?)
    }
}

const FIELDS: [&str; 6] = [
    "frame.number",
    "iscsi.opcode",
    "iscsi.datasegmentlength",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
];

/// Linux first asks for the four bytes that say how long a VPD page is (`scsi_get_vpd_size`), and tshark calls the page
/// malformed for being cut there.
const CUT_VPD_PAGE: [&str; 3] = ["0x25", "4", "[Malformed Packet: SCSI]"];

fn parse(fields: &str) -> Result<Dissection> {
    let mut seen = Dissection::default();
    // The word of warning is tshark's when root runs it.
    for line in fields
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Running as user"))
    {
        let mut columns = line.split('\t');
        let [frame, opcodes, length, malformed, severity, message] = FIELDS.map(|_| columns.next().unwrap_or_default());
        ensure!(frame.parse::<u64>().is_ok(), "tshark said: {line}");
        for opcode in opcodes.split(',').filter(|opcode| !opcode.is_empty()) {
            let digits = opcode.trim_start_matches("0x");
            seen.opcodes
                .push(u8::from_str_radix(digits, 16).with_context(|| format!("opcode {opcode}"))? & 0x3f);
        }
        // What tshark counts as malformed comes with its own name as a second word.
        let malformed = malformed.trim_end_matches(",_ws.malformed");
        if [opcodes, length, malformed] == CUT_VPD_PAGE {
            continue;
        }
        let error = severity
            .split(',')
            .filter_map(|level| level.parse().ok())
            .any(|level: u32| level >= 0x0080_0000);
        if !malformed.is_empty() || error {
            seen.complaints.push(format!("frame {frame}: {malformed} {message}"));
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_and_complaints_are_told_apart() {
        let fields = "Running as user \"root\" and group \"root\". This could be dangerous.\n\
                      4\t0x03\t48\t\t\t\n5\t0x23\t48\t\t\t\n\
                      8\t0x25,0x25\t4,4\t\t2097152\tConnection establish request\n\
                      9\t0x41\t0\t[Malformed Packet: iSCSI],_ws.malformed\t8388608\tMalformed Packet\n\
                      10\t0x25\t4\t[Malformed Packet: SCSI],_ws.malformed\t8388608\tMalformed Packet\n\
                      11\t0x25\t36\t[Malformed Packet: SCSI],_ws.malformed\t8388608\tMalformed Packet\n";
        let seen = parse(fields).unwrap();
        assert_eq!(seen.opcodes, [0x03, 0x23, 0x25, 0x25, 0x01, 0x25, 0x25]);
        let complaints = [
            "frame 9: [Malformed Packet: iSCSI] Malformed Packet",
            "frame 11: [Malformed Packet: SCSI] Malformed Packet",
        ];
        assert_eq!(seen.complaints, complaints);
        assert!(parse("tshark: no such file").is_err());
    }
}
