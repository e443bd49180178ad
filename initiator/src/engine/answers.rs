//! The engine's other half: what the target's PDUs do to the tasks.

use bytes::Bytes;
use iscsi_pdu::{
    BHS_BYTES, DataIn, NopIn, NopOut, Opcode, R2t, RESERVED_TAG, Reject, Response, ScsiResponse, Serial,
    ServiceResponse, TaskFunction, TaskOutcome, sense_bytes,
};

use crate::engine::{Engine, Notice};
use crate::login::same;
use crate::receiver::Piece;
use crate::tasks::{Done, ScsiOutcome, ScsiTask, Task, Transfer};
use crate::{CommandError, PeerError, Sense};

impl Engine {
    pub(crate) fn piece(&mut self, piece: Piece<'_>) -> Result<(), PeerError> {
        match piece {
            Piece::Header(response) => {
                if let Response::DataIn(header) = &response {
                    self.begin_data_in(header)?;
                }
                self.current = Some((response, Vec::new()));
            }
            Piece::Data(chunk) => match &mut self.current {
                Some((Response::DataIn(header), _)) => {
                    if let Some(Task::Scsi(task)) = self.tasks.get_mut(&header.itt) {
                        let Transfer::In(expected) = task.command.transfer else {
                            return Err(PeerError::Unexpected {
                                what: "Data-In for a command that reads nothing",
                            });
                        };
                        let bytes = task.received.len() + chunk.len();
                        if bytes > expected as usize {
                            let (found, expected) = (bytes as u64, u64::from(expected));
                            return Err(PeerError::Mismatch {
                                what: "length of Data-In",
                                found,
                                expected,
                            });
                        }
                        task.received.extend_from_slice(chunk);
                    }
                }
                // The decoder keeps it within our MaxRecvDataSegmentLength.
                Some((_, data)) => data.extend_from_slice(chunk),
                None => {}
            },
            Piece::End => {
                if let Some((response, data)) = self.current.take() {
                    self.response(response, data)?;
                    self.fill_window();
                }
            }
        }
        Ok(())
    }

    /// Data must come in order (DataPDUInOrder and DataSequenceInOrder are Yes).
    fn begin_data_in(&mut self, header: &DataIn) -> Result<(), PeerError> {
        let Some(Task::Scsi(task)) = self.tasks.get_mut(&header.itt) else {
            return Err(PeerError::Unexpected {
                what: "Data-In for no command of ours",
            });
        };
        if task.is_last_data_in {
            return Err(PeerError::Unexpected {
                what: "Data-In after all data",
            });
        }
        same("Data-In DataSN", header.data_sn, task.next_data_sn)?;
        same(
            "Data-In Buffer Offset",
            header.buffer_offset,
            task.received.len() as u64,
        )?;
        task.next_data_sn += 1;
        Ok(())
    }

    fn response(&mut self, response: Response, data: Vec<u8>) -> Result<(), PeerError> {
        let (exp_cmd_sn, max_cmd_sn) = response.window();
        if let Some(stat_sn) = response.stat_sn() {
            same("StatSN", stat_sn.0, self.exp_stat_sn.0)?;
            self.exp_stat_sn += 1;
        }
        // RFC 7143 §4.2.2.1: a window that lies behind itself says nothing, and it never shrinks.
        if exp_cmd_sn.le(max_cmd_sn + 1) && self.max_cmd_sn.lt(max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
        match response {
            Response::ScsiResponse(header) => self.scsi_response(&header, &data),
            Response::DataIn(header) => self.end_data_in(&header),
            Response::R2t(header) => self.r2t(&header),
            Response::NopIn(header) => self.nop_in(&header, &data),
            Response::Reject(header) => {
                self.reject(&header, &data);
                Ok(())
            }
            Response::AsyncMessage(header) => {
                self.notice(Notice::Async(header));
                Ok(())
            }
            Response::Text(header) => {
                let Some(Task::Text(_)) = self.tasks.remove(&header.itt) else {
                    return Err(PeerError::Unexpected { what: "Text Response" });
                };
                let (continue_, final_bit) = (header.continue_, header.final_bit);
                let done = Done::Text {
                    segment: data,
                    continue_,
                    final_bit,
                    lun: header.lun,
                    ttt: header.ttt,
                };
                self.finish(header.itt, done);
                Ok(())
            }
            Response::TaskManagement(header) => self.task_management_response(header.itt, header.response),
            Response::Logout(header) => {
                let Some(Task::Logout) = self.tasks.remove(&header.itt) else {
                    return Err(PeerError::Unexpected {
                        what: "Logout Response",
                    });
                };
                self.finish(header.itt, Done::Logout(header.response));
                Ok(())
            }
            Response::Login(_) => Err(PeerError::Unexpected {
                what: "Login Response in full feature phase",
            }),
        }
    }

    fn take_scsi(&mut self, itt: u32) -> Option<ScsiTask> {
        match self.tasks.remove(&itt) {
            Some(Task::Scsi(task)) => Some(task),
            Some(other) => {
                self.tasks.insert(itt, other);
                None
            }
            None => None,
        }
    }

    fn scsi_response(&mut self, header: &ScsiResponse, data: &[u8]) -> Result<(), PeerError> {
        let Some(task) = self.take_scsi(header.itt) else {
            return Err(PeerError::Unexpected { what: "SCSI Response" });
        };
        let result = match header.response {
            ServiceResponse::Completed => Ok(ScsiOutcome {
                status: header.status,
                sense: sense_bytes(data).and_then(Sense::parse),
                data: Bytes::from(task.received),
                residual: header.residual,
            }),
            other => Err(CommandError::TargetFailure(other.code())),
        };
        self.finish(header.itt, Done::Scsi(result));
        Ok(())
    }

    fn end_data_in(&mut self, header: &DataIn) -> Result<(), PeerError> {
        let Some(status) = header.status else {
            if let Some(Task::Scsi(task)) = self.tasks.get_mut(&header.itt)
                && let Transfer::In(expected) = task.command.transfer
            {
                task.is_last_data_in = header.final_bit && task.received.len() == expected as usize;
            }
            return Ok(());
        };
        // It has been there since the header.
        let Some(task) = self.take_scsi(header.itt) else {
            return Ok(());
        };
        let data = Bytes::from(task.received);
        let outcome = ScsiOutcome {
            status: status.status,
            sense: None,
            data,
            residual: status.residual,
        };
        self.finish(header.itt, Done::Scsi(Ok(outcome)));
        Ok(())
    }

    fn r2t(&mut self, header: &R2t) -> Result<(), PeerError> {
        let Some(Task::Scsi(task)) = self.tasks.get_mut(&header.itt) else {
            return Err(PeerError::Unexpected {
                what: "R2T for no command of ours",
            });
        };
        let Transfer::Out(data) = &task.command.transfer else {
            return Err(PeerError::Unexpected {
                what: "R2T for a command that writes nothing",
            });
        };
        let data = data.clone();
        same("R2TSN", header.r2t_sn, task.next_r2t_sn)?;
        same("R2T Buffer Offset", header.buffer_offset, task.solicited)?;
        let length = header.desired_data_transfer_length;
        let most = self.negotiated.max_burst_bytes.min(data.len() as u32 - task.solicited);
        if length > most {
            let (found, expected) = (u64::from(length), u64::from(most));
            return Err(PeerError::Mismatch {
                what: "R2T Desired Data Transfer Length",
                found,
                expected,
            });
        }
        if header.ttt == RESERVED_TAG {
            return Err(PeerError::Unexpected {
                what: "R2T without a tag",
            });
        }
        task.next_r2t_sn += 1;
        task.solicited += length;
        self.send_burst(
            header.itt,
            header.lun,
            header.ttt,
            &data,
            header.buffer_offset,
            header.buffer_offset + length,
        );
        Ok(())
    }

    fn nop_in(&mut self, header: &NopIn, data: &[u8]) -> Result<(), PeerError> {
        if header.itt != RESERVED_TAG {
            let Some(Task::Nop { ping }) = self.tasks.remove(&header.itt) else {
                return Err(PeerError::Unexpected { what: "NOP-In" });
            };
            // RFC 7143 §11.19: the ping data comes back, cut to what we declared we take.
            let expected = ping.slice(..ping.len().min(self.negotiated.max_recv_data_segment_bytes as usize));
            if expected != data {
                return Err(PeerError::Unexpected { what: "ping data" });
            }
            self.finish(header.itt, Done::Nop);
        }
        if header.ttt == RESERVED_TAG {
            if header.itt == RESERVED_TAG {
                self.notice(Notice::Ping);
            }
            return Ok(());
        }
        let (cmd_sn, exp_stat_sn) = (self.cmd_sn, self.exp_stat_sn);
        let (lun, ttt) = (header.lun, header.ttt);
        self.send(
            &NopOut {
                immediate: true,
                lun,
                itt: RESERVED_TAG,
                ttt,
                cmd_sn,
                exp_stat_sn,
            },
            Bytes::new(),
        );
        self.notice(Notice::PingAnswered);
        Ok(())
    }

    fn reject(&mut self, header: &Reject, data: &[u8]) {
        let rejected = data.first_chunk::<BHS_BYTES>();
        let itt = rejected.map(|bhs| u32::from_be_bytes([bhs[16], bhs[17], bhs[18], bhs[19]]));
        // A rejected Data-Out leaves its command to end by itself (RFC 7143 §7.3).
        let is_data = rejected.is_some_and(|bhs| bhs[0] & 0x3f == Opcode::DataOut.code());
        match itt
            .filter(|_| !is_data)
            .and_then(|itt| self.tasks.remove(&itt).map(|task| (itt, task)))
        {
            Some((itt, Task::Scsi(_))) => {
                self.finish(itt, Done::Scsi(Err(CommandError::Rejected(header.reason))));
            }
            Some((itt, _)) => self.finish(itt, Done::Rejected(header.reason)),
            None => self.notice(Notice::Rejected(header.reason)),
        }
    }

    fn task_management_response(&mut self, itt: u32, outcome: TaskOutcome) -> Result<(), PeerError> {
        let Some(Task::Management {
            function,
            lun,
            referenced,
        }) = self.tasks.remove(&itt)
        else {
            return Err(PeerError::Unexpected {
                what: "Task Management Function Response",
            });
        };
        if outcome == TaskOutcome::Complete {
            // No response will come for these (RFC 7143 §11.5.1, §11.6.1).
            let ended: Vec<u32> = self
                .tasks
                .iter()
                .filter(|(tag, task)| match (task, function) {
                    (Task::Scsi(_), TaskFunction::AbortTask) => **tag == referenced,
                    (
                        Task::Scsi(task),
                        TaskFunction::AbortTaskSet | TaskFunction::ClearTaskSet | TaskFunction::LogicalUnitReset,
                    ) => task.command.lun == lun && self.was_sent_before(**tag, itt),
                    (Task::Scsi(_), TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset) => {
                        self.was_sent_before(**tag, itt)
                    }
                    _ => false,
                })
                .map(|(tag, _)| *tag)
                .collect();
            for tag in ended {
                self.tasks.remove(&tag);
                self.waiting.retain(|waiting| *waiting != tag);
                self.finish(tag, Done::Scsi(Err(CommandError::Aborted)));
            }
        }
        self.finish(itt, Done::TaskManagement(outcome));
        Ok(())
    }

    /// Tags are given out in order.
    fn was_sent_before(&self, tag: u32, later: u32) -> bool {
        Serial(tag).lt(Serial(later)) && !self.waiting.contains(&tag)
    }
}
