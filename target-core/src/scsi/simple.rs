//! Commands that neither name blocks nor describe the unit.

use super::attention::Attention;
use super::request::{Plan, Planned, Request, answer};
use super::sense::Sense;

/// TEST UNIT READY (SPC-5 6.48): the medium cannot be taken out, so it is ready.
pub(super) fn test_unit_ready(_: &Request<'_>) -> Planned {
    Ok(Plan::Answer(Vec::new()))
}

/// REQUEST SENSE (SPC-5 6.43): a pending unit attention is handed over as data, and with that is done.
pub(super) fn request_sense(request: &Request<'_>) -> Planned {
    let sense = request.path.pending().take().map_or(Sense::NONE, Attention::sense);
    let data = if request.cdb[1] & 0x01 != 0 {
        sense.descriptor().to_vec()
    } else {
        sense.fixed().to_vec()
    };
    answer(data, u32::from(request.cdb[4]))
}
