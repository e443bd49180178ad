//! Reading a guest's kernel log: what in it says that something went wrong on the way to the disk.

use anyhow::{Context, Result};

/// What the guest's init writes to the log before the script starts.
const START: &str = "farlun: the script starts";

/// Lowest priority that is trouble whatever the text: 0 emergency to 3 error (`man 3 syslog`).
const ERROR_PRIORITY: u8 = 3;

/// Texts, in lower case, that are trouble at any priority. From Linux 6.1 `drivers/scsi/{scsi_error,scsi_logging,sd}.c`,
/// `drivers/scsi/{libiscsi,iscsi_tcp,scsi_transport_iscsi}.c`, `block/blk-core.c`, `fs/ext4`, `kernel/hung_task.c`.
const TROUBLE: &[&str] = &[
    "error",
    "fail",
    "retry",
    "retries",
    "timed out",
    "timeout",
    "timing out",
    "abort",
    "reset",
    "offline",
    "sense key",
    "unit attention",
    "add. sense",
    "inquiry data has changed",
    "reported luns data has changed",
    "lun assignments on this target have changed",
    "capacity data has changed",
    "mode parameters changed",
    "asymmetric access state changed",
    "warning! received an indication",
    "dropping",
    "detected conn",
    "invalid",
    "unknown",
    "corrupt",
    "remounting",
    "blocked for more than",
    "call trace",
    "oops",
    "bug:",
    "warning:",
    "lost page write",
    "assuming drive cache",
];

/// The log from the mark that init wrote.
///
/// # Errors
/// The mark is not there: the log overflowed, or was never read.
pub fn since_start(log: &str) -> Result<&str> {
    let mark = log
        .find(START)
        .context("the kernel's log does not show where the script starts")?;
    Ok(log[mark..].split_once('\n').map_or("", |(_, rest)| rest))
}

/// The unit attention 29h/00h as Linux words it. SAM-5 5.14 has a logical unit establish one for each new I_T nexus, so a
/// disk may have one, while it is being attached.
const POWER_ON: &str = "power-on or device reset occurred";

/// The lines of a raw log (`<priority>[seconds] text`) that tell of trouble.
pub fn trouble(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let found = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| is_trouble(line) && !is_greeting(&lines, *at));
    found.map(|(_, line)| *line).collect()
}

/// Whether line `at` is the one unit attention that a new disk greets with: none of this device before it, and the end
/// of attaching after it.
fn is_greeting(lines: &[&str], at: usize) -> bool {
    let line = lines[at].to_lowercase();
    let Some(device) = line
        .strip_suffix(POWER_ON)
        .and_then(|rest| rest.split_once("] "))
        .map(|(_, device)| device)
    else {
        return false;
    };
    let of_device = |line: &&&str| line.to_lowercase().contains(device);
    let attached = |line: &&str| line.contains("Attached SCSI disk");
    let before = lines[..at].iter().filter(of_device);
    !before
        .clone()
        .any(|line| attached(line) || line.to_lowercase().contains(POWER_ON))
        && lines[at..].iter().filter(of_device).any(attached)
}

fn is_trouble(line: &str) -> bool {
    let (priority, text) = split_priority(line);
    // The facility is in the bits above the three of the priority.
    if priority.is_some_and(|value| value & 7 <= u32::from(ERROR_PRIORITY)) {
        return true;
    }
    let text = text.to_lowercase();
    TROUBLE.iter().any(|pattern| text.contains(pattern))
}

fn split_priority(line: &str) -> (Option<u32>, &str) {
    match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((number, text)) => (number.parse().ok(), text),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login, a mount and a logout as Linux 6.1 logs them when all is well.
    const GOOD: &str = "\
<6>[    1.200000] scsi host0: iSCSI Initiator over TCP/IP
<5>[    1.210000] scsi 0:0:0:0: Direct-Access     FARLUN   disk             0001 PQ: 0 ANSI: 7
<5>[    1.220000] sd 0:0:0:0: [sda] 524288 512-byte logical blocks: (268 MB/256 MiB)
<5>[    1.220000] sd 0:0:0:0: [sda] Write Protect is off
<7>[    1.220000] sd 0:0:0:0: [sda] Mode Sense: 2f 00 10 08
<5>[    1.220000] sd 0:0:0:0: [sda] Write cache: enabled, read cache: enabled, supports DPO and FUA
<5>[    1.240000] sd 0:0:0:0: [sda] Attached SCSI disk
<6>[    1.800000] EXT4-fs (sda): mounted filesystem with ordered data mode. Quota mode: none.
<6>[    3.100000] EXT4-fs (sda): unmounting filesystem.
<5>[    3.500000] sd 0:0:0:0: [sda] Synchronizing SCSI cache
";

    #[test]
    fn a_quiet_log_has_no_trouble() {
        assert_eq!(trouble(GOOD), Vec::<&str>::new());
    }

    /// Each of these lines, put into a good log, is found, and it alone.
    #[test]
    fn every_kind_of_trouble_is_found() {
        let lines = [
            "<4>[    2.0] sd 0:0:0:0: Power-on or device reset occurred",
            "<6>[    2.0] sd 0:0:0:0: [sda] tag#3 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK cmd_age=0s",
            "<6>[    2.0] sd 0:0:0:0: [sda] tag#3 Sense Key : Illegal Request [current]",
            "<6>[    2.0] sd 0:0:0:0: [sda] tag#3 Add. Sense: Invalid field in cdb",
            "<4>[    2.0] sd 0:0:0:0: Inquiry data has changed",
            "<4>[    2.0] sd 0:0:0:0: Warning! Received an indication that the LUN reached a thin provisioning threshold.",
            "<3>[    2.0] blk_update_request: I/O error, dev sda, sector 8 op 0x1:(WRITE)",
            "<6>[    2.0]  connection1:0: detected conn error (1020)",
            "<6>[    2.0]  connection1:0: ping timeout of 5 secs expired, recv timeout 5",
            "<6>[    2.0]  session1: session recovery timed out after 120 secs",
            "<4>[    2.0] sd 0:0:0:0: [sda] tag#0 timing out command, waited 180s",
            "<6>[    2.0] sd 0:0:0:0: [sda] tag#7 ABORT SUCCESS",
            "<3>[    2.0] some words that no list has",
            "<11>[    2.0] an error that user space logged",
            "<6>[    2.0] INFO: task jbd2/sda-8:77 blocked for more than 120 seconds.",
            "<4>[    2.0] EXT4-fs warning (device sda): ext4_end_bio:343: retry",
            "<5>[    2.0] sd 0:0:0:0: [sda] Assuming drive cache: write through",
        ];
        for line in lines {
            let log = format!("{GOOD}{line}\n{GOOD}");
            assert_eq!(trouble(&log), [line]);
        }
    }

    #[test]
    fn one_unit_attention_is_expected_while_a_disk_is_attached() {
        let greeting = "<4>[    1.215000] sd 0:0:0:0: Power-on or device reset occurred";
        let other = "<4>[    1.215000] sd 1:0:0:0: Power-on or device reset occurred";
        assert_eq!(trouble(&format!("{greeting}\n{GOOD}")), Vec::<&str>::new());
        assert_eq!(trouble(&format!("{greeting}\n{greeting}\n{GOOD}")), [greeting]);
        assert_eq!(
            trouble(&format!("{other}\n{GOOD}")),
            [other],
            "of a disk that was never attached"
        );
    }

    #[test]
    fn what_the_kernel_said_while_booting_is_left_out() {
        let log = format!("<3>[ 0.1] Failed to initialize ubd device 0\n<5>[ 1.0] {START}\n{GOOD}");
        assert_eq!(since_start(&log).unwrap(), GOOD);
        assert!(since_start(GOOD).is_err());
    }
}
