//! Login Request (RFC 7143 §11.12).

use nom::number::complete::{be_u16, be_u32};

use crate::fields::{CONTINUE, FINAL, Writer, array, fields, flag, invalid, no_ahs, reserved, serial};
use crate::pdu::Stage;
use crate::{BHS_BYTES, Emit, HeaderError, Isid, Opcode, Serial};

/// Header of a Login Request; its data segment is text. Always immediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// T: ready to go to `nsg`.
    pub transit: bool,
    /// C: the text goes on in the next request. Never together with `transit`.
    pub continue_: bool,
    /// Current stage: never full feature phase.
    pub csg: Stage,
    /// Next stage when `transit` is set; a copy of `csg` otherwise (the field is reserved then).
    pub nsg: Stage,
    /// Highest version the initiator speaks.
    pub version_max: u8,
    /// Lowest version the initiator speaks.
    pub version_min: u8,
    /// The initiator's part of the session identifier.
    pub isid: Isid,
    /// 0 for a new session.
    pub tsih: u16,
    /// Tag, the same in all requests of one login.
    pub itt: u32,
    /// Connection identifier.
    pub cid: u16,
    /// First CmdSN of the session, the same in all requests of the leading login.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
}

impl LoginRequest {
    /// Reads the header. Refused: reserved stages, a transition backwards or to the same stage (§6.3), T with C
    /// (§11.12.2).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<LoginRequest, HeaderError> {
        no_ahs(bhs, ahs)?;
        let flags = bhs[1];
        let (isid, tsih, itt, cid, (), cmd_sn, exp_stat_sn) = fields(
            bhs,
            8,
            (array::<6>, be_u16, be_u32, be_u16, reserved::<2>, serial, serial),
        )?;
        let (transit, continue_) = (flags & FINAL != 0, flags & CONTINUE != 0);
        let csg = Stage::from_code(flags >> 2 & 0x03)
            .filter(|stage| *stage != Stage::FullFeature)
            .ok_or_else(|| invalid(bhs, "CSG", flags >> 2 & 0x03))?;
        let nsg = if transit {
            Stage::from_code(flags & 0x03)
                .filter(|next| csg.may_go_to(*next))
                .ok_or_else(|| invalid(bhs, "NSG", flags & 0x03))?
        } else {
            csg
        };
        if transit && continue_ {
            return Err(invalid(bhs, "C", 1_u8));
        }
        Ok(LoginRequest {
            transit,
            continue_,
            csg,
            nsg,
            version_max: bhs[2],
            version_min: bhs[3],
            isid: Isid(isid),
            tsih,
            itt,
            cid,
            cmd_sn,
            exp_stat_sn,
        })
    }
}

impl Emit for LoginRequest {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let nsg = if self.transit { self.nsg.code() } else { 0 };
        let flags = flag(self.transit, FINAL) | flag(self.continue_, CONTINUE) | self.csg.code() << 2 | nsg;
        Writer::new(Opcode::LoginRequest, true, flags, data_bytes)
            .u8(2, self.version_max)
            .u8(3, self.version_min)
            .bytes(8, &self.isid.0)
            .u16(14, self.tsih)
            .u32(16, self.itt)
            .u16(20, self.cid)
            .serial(24, self.cmd_sn)
            .serial(28, self.exp_stat_sn)
            .finish(out);
    }
}
