//! Login and discovery against a scripted target.

mod peer;

use initiator::{Connection, Error, LoginOptions, PeerError, SendTargets, Session, TargetAddress};
use iscsi_pdu::*;
use peer::{INITIATOR, KEYS, PIPE_BYTES, Peer, TARGET, login_outcome, options, session, text};

fn has(keys: &[(String, String)], key: &str, value: &str) -> bool {
    keys.iter().any(|(k, v)| k == key && v == value)
}

#[tokio::test]
async fn both_stages_and_what_they_agree_on() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = LoginOptions {
        header_digest: true,
        data_digest: true,
        ..options()
    };
    let target = async {
        let (request, keys) = peer.login_request().await;
        assert_eq!(
            (request.transit, request.csg, request.nsg),
            (true, Stage::Security, Stage::Operational)
        );
        assert_eq!(
            (request.tsih, request.cmd_sn, request.isid),
            (0, Serial(1), options.isid)
        );
        assert_eq!(keys.len(), 4);
        assert!(has(&keys, "InitiatorName", INITIATOR) && has(&keys, "TargetName", TARGET));
        assert!(has(&keys, "SessionType", "Normal") && has(&keys, "AuthMethod", "None"));
        let answer = peer.login_response(&request);
        peer.send(&answer, &text(&[("AuthMethod", "None"), ("TargetAlias", "a disk")]))
            .await;

        let (request, keys) = peer.login_request().await;
        assert_eq!(
            (request.transit, request.csg, request.nsg),
            (true, Stage::Operational, Stage::FullFeature)
        );
        assert_eq!(request.exp_stat_sn, Serial(1001));
        assert!(has(&keys, "HeaderDigest", "CRC32C,None") && has(&keys, "InitialR2T", "No"));
        assert!(has(&keys, "MaxBurstLength", "16776704") && has(&keys, "ErrorRecoveryLevel", "0"));
        let answer = peer.login_response(&request);
        let keys = [&[("HeaderDigest", "CRC32C"), ("DataDigest", "None")], &KEYS[2..]].concat();
        peer.send(&answer, &text(&keys)).await;
    };
    let (session, ()) = tokio::join!(Session::login(near, &options), target);
    let session = session.expect("login");
    let keys = session.negotiated();
    assert!(keys.header_digest && !keys.data_digest && !keys.initial_r2t && keys.immediate_data);
    assert_eq!(
        (keys.max_send_data_segment_bytes, keys.max_recv_data_segment_bytes),
        (1024, 262_144)
    );
    assert_eq!(
        (keys.max_burst_bytes, keys.first_burst_bytes, keys.max_outstanding_r2t),
        (4096, 2048, 1)
    );
    assert_eq!((keys.tsih, keys.key("TargetAlias")), (7, Some("a disk")));
}

#[tokio::test]
async fn straight_to_the_operational_stage() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = LoginOptions {
        first_stage: Stage::Operational,
        initial_r2t: true,
        immediate_data: false,
        extra_keys: vec![("X-com.example.test".to_owned(), "1".to_owned())],
        ..options()
    };
    let target = async {
        let (request, keys) = peer.login_request().await;
        assert_eq!((request.csg, request.nsg), (Stage::Operational, Stage::FullFeature));
        assert!(has(&keys, "InitiatorName", INITIATOR) && has(&keys, "InitialR2T", "Yes"));
        assert!(has(&keys, "ImmediateData", "No") && has(&keys, "X-com.example.test", "1"));
        let mut answer = peer.login_response(&request);
        // Not yet: there is an offer of our own first, and a key nobody knows.
        answer.transit = false;
        answer.nsg = answer.csg;
        let offers = [
            ("X-com.example.test", "NotUnderstood"),
            ("InitialR2T", "Yes"),
            ("ImmediateData", "No"),
            ("TaskReporting", "FastAbort,RFC3720"),
            ("iSCSIProtocolLevel", "2"),
            ("OFMarker", "Yes"),
            ("X-com.example.other", "2"),
        ];
        peer.send(&answer, &text(&offers)).await;
        let (request, keys) = peer.login_request().await;
        assert!(request.transit);
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(has(&keys, "TaskReporting", "RFC3720") && has(&keys, "iSCSIProtocolLevel", "1"));
        assert!(has(&keys, "OFMarker", "Reject") && has(&keys, "X-com.example.other", "NotUnderstood"));
        let answer = peer.login_response(&request);
        peer.send(&answer, &[]).await;
    };
    let (session, ()) = tokio::join!(Session::login(near, &options), target);
    let session = session.expect("login");
    let keys = session.negotiated();
    assert!(keys.initial_r2t && !keys.immediate_data);
    // Unanswered keys keep their defaults (RFC 7143 §13).
    assert_eq!(
        (
            keys.max_send_data_segment_bytes,
            keys.max_burst_bytes,
            keys.first_burst_bytes
        ),
        (8192, 262_144, 65536)
    );
    assert_eq!(
        (
            keys.max_connections,
            keys.default_time_to_wait_s,
            keys.default_time_to_retain_s
        ),
        (1, 2, 20)
    );
}

#[tokio::test]
async fn an_answer_over_the_c_bit() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = options();
    let target = async {
        let (request, _) = peer.login_request().await;
        let answer = peer.login_response(&request);
        peer.send(&answer, &text(&[("AuthMethod", "None")])).await;
        let (mut request, _) = peer.login_request().await;
        let whole = text(KEYS);
        for chunk in whole[..whole.len() - 5].chunks(20) {
            let mut answer = peer.login_response(&request);
            (answer.transit, answer.continue_, answer.nsg) = (false, true, answer.csg);
            peer.send(&answer, chunk).await;
            let (next, keys) = peer.login_request().await;
            assert_eq!((next.transit, keys.len()), (false, 0));
            request = next;
        }
        let mut answer = peer.login_response(&request);
        (answer.transit, answer.nsg) = (false, answer.csg);
        peer.send(&answer, &whole[whole.len() - 5..]).await;
        let (request, keys) = peer.login_request().await;
        assert_eq!((request.transit, keys.len()), (true, 0));
        let answer = peer.login_response(&request);
        peer.send(&answer, &[]).await;
    };
    let (session, ()) = tokio::join!(Session::login(near, &options), target);
    assert_eq!(session.expect("login").negotiated().max_burst_bytes, 4096);
}

#[tokio::test]
async fn refusals_in_plain_words() {
    for (status, words) in [
        (LoginStatus::NotFound, "login refused: no such target here (02/03)"),
        (
            LoginStatus::AuthenticationFailure,
            "login refused: authentication failed or is required (02/01)",
        ),
        (
            LoginStatus::OutOfResources,
            "login refused: the target has no room for another session (03/02)",
        ),
        (
            LoginStatus::TargetMovedTemporarily,
            "login refused: the target has moved for a while (01/01); it is at nas:3261,1 now",
        ),
        (LoginStatus::Other(0x02ff), "login refused: initiator error (02/ff)"),
    ] {
        let (near, mut peer) = Peer::pair(PIPE_BYTES);
        let options = options();
        let target = async {
            let (request, _) = peer.login_request().await;
            let answer = LoginResponse {
                transit: false,
                nsg: request.csg,
                tsih: 0,
                status,
                ..peer.login_response(&request)
            };
            peer.send(&answer, &text(&[("TargetAddress", "nas:3261,1")])).await;
        };
        let (session, ()) = tokio::join!(Session::login(near, &options), target);
        assert_eq!(session.expect_err("refused").to_string(), words);
    }
}

/// One answer of the operational stage changed, and what is said of it.
#[tokio::test]
async fn answers_that_are_none() {
    for (key, value, says) in [
        ("HeaderDigest", "CRC32C", "HeaderDigest = \"CRC32C\" is not an answer"),
        ("HeaderDigest", "Reject", "HeaderDigest = \"Reject\" is not an answer"),
        (
            "MaxBurstLength",
            "16777215",
            "MaxBurstLength = \"16777215\" is not an answer",
        ),
        ("MaxBurstLength", "511", "511 is not within 512 to 16777215"),
        ("FirstBurstLength", "262145", "is not an answer"),
        ("MaxRecvDataSegmentLength", "-1", "not a number"),
        ("InitialR2T", "Perhaps", "neither Yes nor No"),
        ("DataPDUInOrder", "No", "is not an answer"),
        ("ErrorRecoveryLevel", "2", "is not an answer"),
        ("MaxConnections", "8", "is not an answer"),
        ("MaxOutstandingR2T", "5", "is not an answer"),
        ("DefaultTime2Retain", "1", "is not an answer"),
    ] {
        let error = login_outcome(&options(), &[(key, value)])
            .await
            .expect_err(key)
            .to_string();
        assert!(error.contains(says), "{key}={value}: {error}");
    }
    let strict = LoginOptions {
        initial_r2t: true,
        immediate_data: false,
        ..options()
    };
    for (key, value) in [("InitialR2T", "No"), ("ImmediateData", "Yes")] {
        let error = login_outcome(&strict, &[(key, value)]).await;
        assert!(matches!(error, Err(Error::Negotiation { .. })), "{key}: {error:?}");
    }
}

#[tokio::test]
async fn targets_that_break_login() {
    type Break = fn(&mut LoginResponse, &mut Vec<u8>);
    let cases: &[(&str, Break)] = &[
        ("ITT of a login response is 0x1, expected 0x0", |answer, _| {
            answer.itt = 1
        }),
        ("version of a login response is 0x1", |answer, _| {
            answer.version_active = 1
        }),
        ("ISID", |answer, _| answer.isid = Isid([9; 6])),
        ("CSG of a login response is 0x1, expected 0x0", |answer, _| {
            (answer.csg, answer.nsg) = (Stage::Operational, Stage::FullFeature);
        }),
        ("stage transition nobody asked for", |answer, _| {
            answer.nsg = Stage::FullFeature
        }),
        ("not terminated", |_, text| {
            text.pop();
        }),
        ("AuthMethod is given twice", |_, text| {
            text.extend_from_slice(b"AuthMethod=None\0")
        }),
        ("AuthMethod = \"CHAP\" is not an answer", |_, data| {
            *data = text(&[("AuthMethod", "CHAP")])
        }),
        ("offer in the last answer", |_, data| {
            *data = text(&[("MaxConnections", "4")])
        }),
        ("data segment of 8196 bytes", |_, text| text.resize(8196, 0)),
    ];
    for (says, change) in cases {
        let (near, mut peer) = Peer::pair(PIPE_BYTES);
        let options = options();
        let target = async {
            let (request, _) = peer.login_request().await;
            let mut answer = peer.login_response(&request);
            let mut data = text(&[("AuthMethod", "None")]);
            change(&mut answer, &mut data);
            peer.send(&answer, &data).await;
        };
        let (session, ()) = tokio::join!(Session::login(near, &options), target);
        let error = session.expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_login_without_end() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = options();
    let target = async move {
        while let Some((Request::Login(request), _)) = peer.try_recv().await {
            let mut answer = peer.login_response(&request);
            (answer.transit, answer.nsg) = (false, answer.csg);
            peer.send(&answer, &[]).await;
        }
    };
    let (session, ()) = tokio::join!(Session::login(near, &options), target);
    assert!(matches!(
        session,
        Err(Error::Peer(PeerError::Unexpected {
            what: "login that does not end"
        }))
    ));
}

#[tokio::test]
async fn last_words_of_a_login() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = options();
    let target = async {
        let (request, _) = peer.login_request().await;
        let answer = peer.login_response(&request);
        peer.send(&answer, &[]).await;
        let (request, _) = peer.login_request().await;
        let answer = LoginResponse {
            tsih: 0,
            ..peer.login_response(&request)
        };
        peer.send(&answer, &text(KEYS)).await;
    };
    let (session, ()) = tokio::join!(Session::login(near, &options), target);
    assert!(session.expect_err("no TSIH").to_string().contains("TSIH of 0"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_target_and_one_that_hangs_up() {
    let (near, peer) = Peer::pair(PIPE_BYTES);
    let error = Session::login(near, &options()).await.expect_err("silence");
    assert!(matches!(error, Error::Timeout { timeout_ms: 5000, .. }), "{error}");
    drop(peer);
    let (near, peer) = Peer::pair(PIPE_BYTES);
    drop(peer);
    let error = Session::login(near, &options()).await.expect_err("closed");
    assert!(
        matches!(error, Error::Peer(PeerError::Closed) | Error::Io(_)),
        "{error}"
    );
}

#[tokio::test]
async fn options_that_cannot_be() {
    let (near, _peer) = Peer::pair(PIPE_BYTES);
    let bad_name = LoginOptions {
        initiator_name: "home".to_owned(),
        ..options()
    };
    assert!(matches!(Session::login(near, &bad_name).await, Err(Error::Misuse(_))));
    let (near, _peer) = Peer::pair(PIPE_BYTES);
    let too_long = LoginOptions {
        max_burst_bytes: 1 << 24,
        first_stage: Stage::Operational,
        ..options()
    };
    assert!(matches!(Session::login(near, &too_long).await, Err(Error::Misuse(_))));
}

#[tokio::test]
async fn discovery_over_several_responses() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = LoginOptions {
        target_name: None,
        ..options()
    };
    let target = async move {
        let (request, keys) = peer.login_request().await;
        assert!(has(&keys, "SessionType", "Discovery") && keys.iter().all(|(key, _)| key != "TargetName"));
        let answer = peer.login_response(&request);
        peer.send(&answer, &text(&[("AuthMethod", "None")])).await;
        let (request, keys) = peer.login_request().await;
        assert!(
            keys.iter()
                .all(|(key, _)| !["InitialR2T", "MaxBurstLength"].contains(&key.as_str())),
            "{keys:?}"
        );
        let answer = peer.login_response(&request);
        peer.send(&answer, &text(&[("HeaderDigest", "None"), ("DataDigest", "None")]))
            .await;

        let whole = b"TargetName=iqn.a:1\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[fe80::1]:3261,2\0\
                      TargetName=iqn.a:2\0TargetAlias=no address\0";
        // The first segment ends with C set, the second with F clear, the third ends it.
        let mut expected_ttt = RESERVED_TAG;
        let parts = [
            (&whole[..30], true, false, 5),
            (&whole[30..70], false, false, 6),
            (&whole[70..], false, true, 7),
        ];
        for (segment, continue_, final_bit, ttt) in parts {
            let (request, data) = peer.recv().await;
            let Request::Text(request) = request else {
                panic!("expected a Text Request, got {request:?}")
            };
            assert_eq!(
                (request.ttt, request.final_bit, request.continue_),
                (expected_ttt, true, false)
            );
            assert_eq!(data, if ttt == 5 { &b"SendTargets=All\0"[..] } else { b"" });
            expected_ttt = ttt;
            let response = TextResponse {
                final_bit,
                continue_,
                lun: Lun::default(),
                itt: request.itt,
                ttt: if final_bit { RESERVED_TAG } else { ttt },
                stat_sn: peer.next_stat_sn(),
                exp_cmd_sn: peer.exp_cmd_sn,
                max_cmd_sn: peer.max_cmd_sn,
            };
            peer.send(&response, segment).await;
        }
        peer.logout().await;
    };
    let discover = async {
        let mut session = Session::login(near, &options).await?;
        let targets = session.send_targets(&SendTargets::All).await?;
        session.logout().await?;
        Ok::<_, Error>(targets)
    };
    let (targets, ()) = tokio::join!(discover, target);
    let targets = targets.expect("discovery");
    assert_eq!(targets.len(), 2);
    assert_eq!(
        (targets[0].name.as_str(), targets[1].name.as_str()),
        ("iqn.a:1", "iqn.a:2")
    );
    assert_eq!(targets[1].addresses, []);
    let address = |host: &str, port, portal_group| TargetAddress {
        host: host.to_owned(),
        port,
        portal_group,
    };
    assert_eq!(
        targets[0].addresses,
        [address("10.0.0.1", 3260, 1), address("fe80::1", 3261, 2)]
    );
}

/// For those who want to see how a target takes what no initiator sends.
#[tokio::test]
async fn a_connection_without_a_session() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let mut connection = Connection::new(near);
    let rejected = [0x1c; 48];
    let hostile = async {
        connection.send_raw(b"any bytes at all");
        connection.flush().await.expect("written");
        connection.receive().await.expect("an answer")
    };
    let target = async {
        use tokio::io::AsyncReadExt;
        let mut bytes = [0; 16];
        peer.stream.read_exact(&mut bytes).await.expect("readable");
        assert_eq!(&bytes, b"any bytes at all");
        let reject = Reject {
            reason: RejectReason::CommandNotSupported,
            stat_sn: Serial(1),
            exp_cmd_sn: Serial(1),
            max_cmd_sn: Serial(1),
            data_sn: 0,
        };
        peer.send(&reject, &rejected).await;
    };
    let ((response, data), ()) = tokio::join!(hostile, target);
    assert!(matches!(
        response,
        Response::Reject(Reject {
            reason: RejectReason::CommandNotSupported,
            ..
        })
    ));
    assert_eq!(data, rejected);
}

#[tokio::test]
async fn logout_waits_for_the_target_to_close() {
    let (session, peer) = session().await;
    let (out, ()) = tokio::join!(session.logout(), peer.logout());
    out.expect("logout");
}
