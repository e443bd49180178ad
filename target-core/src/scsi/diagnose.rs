//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-5 6.45, 6.29): the default self-test, and no pages.

use super::control::Control;
use super::execute::{Failure, Job, Outcome};
use super::request::{Plan, Planned, Request, answer, be16};
use super::sense::{Key, Sense};
use crate::lun::{MediumError, Wait};

/// LOGICAL UNIT FAILED SELF-TEST.
const FAILED: Sense = Sense::new(Key::HardwareError, (0x3E, 0x03));
/// SELFTEST.
const SELFTEST: u8 = 0x04;
/// Supported diagnostic pages (SPC-5 7.2.8): this one alone.
const SUPPORTED_PAGES: [u8; 5] = [0x00, 0x00, 0x00, 0x01, 0x00];

/// SEND DIAGNOSTIC. There are no pages to be sent and no self-tests but the default one.
pub(super) fn send(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    if cdb[1] & 0xE0 != 0 {
        return Err(Sense::cdb_field(1, 7));
    }
    if be16(cdb, 3) != 0 {
        return Err(Sense::cdb_field(3, 7));
    }
    Ok(if cdb[1] & SELFTEST != 0 {
        Control::plan(request, 0, 0, self_test)
    } else {
        Plan::Answer(Vec::new())
    })
}

/// What is in the cache reaches the medium, and the first and the last block can be read.
fn self_test(job: &Job<'_>, _: &Control) -> Outcome {
    if job.wait == Wait::Never {
        return Err(Failure::WouldBlock);
    }
    let failed = |error: MediumError| job.failure(error, FAILED, "self-test");
    if !job.path.unit().is_read_only() {
        job.medium.flush(job.wait).map_err(failed)?;
    }
    let last = job.path.unit().blocks().saturating_sub(1);
    for block in [0, last] {
        let mut data = Vec::new();
        job.medium
            .read(block * job.block_bytes, job.block_bytes as usize, &mut data, job.wait)
            .map_err(failed)?;
    }
    Ok(Vec::new())
}

/// RECEIVE DIAGNOSTIC RESULTS: the list of pages, if it is asked for (PCV).
pub(super) fn receive(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    if cdb[1] & 0x01 == 0 {
        // The results of a page sent before, and none can be.
        return Err(Sense::cdb_field(1, 0));
    }
    if cdb[2] != 0 {
        return Err(Sense::cdb_field(2, 7));
    }
    answer(SUPPORTED_PAGES.to_vec(), u32::from(be16(cdb, 3)))
}
