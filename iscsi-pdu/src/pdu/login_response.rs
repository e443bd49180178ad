//! Login Response (RFC 7143 §11.13).

use nom::number::complete::{be_u16, be_u32};

use crate::fields::{CONTINUE, FINAL, Writer, array, fields, flag, invalid, no_ahs, reserved, serial};
use crate::pdu::{LoginStatus, Stage};
use crate::{BHS_BYTES, Emit, HeaderError, Isid, Opcode, Serial};

/// Header of a Login Response; its data segment is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    /// T: the target goes to `nsg` too.
    pub transit: bool,
    /// C: the text goes on in the next response.
    pub continue_: bool,
    /// Current stage.
    pub csg: Stage,
    /// Next stage when `transit` is set; a copy of `csg` otherwise (the field is reserved then).
    pub nsg: Stage,
    /// Highest version the target speaks.
    pub version_max: u8,
    /// Version in use: lowest both speak.
    pub version_active: u8,
    /// Copied from the request.
    pub isid: Isid,
    /// The session's handle in the last response; the request's before.
    pub tsih: u16,
    /// Tag of the request.
    pub itt: u32,
    /// Status sequence number. Meaningful, like the next two, only with status success.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// How the login goes.
    pub status: LoginStatus,
}

impl LoginResponse {
    /// Reads the header. Stages are held to the rules only while the login goes on: a refusal may come from a target
    /// that could make nothing of the request.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<LoginResponse, HeaderError> {
        no_ahs(bhs, ahs)?;
        let flags = bhs[1];
        let (isid, tsih, itt, (), stat_sn, exp_cmd_sn, max_cmd_sn, status) = fields(
            bhs,
            8,
            (
                array::<6>,
                be_u16,
                be_u32,
                reserved::<4>,
                serial,
                serial,
                serial,
                be_u16,
            ),
        )?;
        let status = LoginStatus::from_code(status);
        let (mut transit, mut continue_) = (flags & FINAL != 0, flags & CONTINUE != 0);
        let (csg, nsg) = (Stage::from_code(flags >> 2 & 0x03), Stage::from_code(flags & 0x03));
        let (csg, nsg) = if !status.is_success() {
            (transit, continue_) = (false, false);
            let csg = csg.unwrap_or(Stage::Security);
            (csg, csg)
        } else {
            let csg = csg
                .filter(|stage| *stage != Stage::FullFeature)
                .ok_or_else(|| invalid(bhs, "CSG", flags >> 2 & 0x03))?;
            let nsg = if transit {
                nsg.filter(|next| csg.may_go_to(*next))
                    .ok_or_else(|| invalid(bhs, "NSG", flags & 0x03))?
            } else {
                csg
            };
            (csg, nsg)
        };
        if transit && continue_ {
            return Err(invalid(bhs, "C", 1_u8));
        }
        Ok(LoginResponse {
            transit,
            continue_,
            csg,
            nsg,
            version_max: bhs[2],
            version_active: bhs[3],
            isid: Isid(isid),
            tsih,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status,
        })
    }
}

impl Emit for LoginResponse {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let nsg = if self.transit { self.nsg.code() } else { 0 };
        let flags = flag(self.transit, FINAL) | flag(self.continue_, CONTINUE) | self.csg.code() << 2 | nsg;
        Writer::new(Opcode::LoginResponse, false, flags, data_bytes)
            .u8(2, self.version_max)
            .u8(3, self.version_active)
            .bytes(8, &self.isid.0)
            .u16(14, self.tsih)
            .u32(16, self.itt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u16(36, self.status.code())
            .finish(out);
    }
}
