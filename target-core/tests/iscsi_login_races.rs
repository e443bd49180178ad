//! What changes while a login is under way: sessions that begin meanwhile, targets that go, rules that become stricter.

mod chap_support;
mod support;

use std::sync::Arc;

use chap_support::*;
use iscsi_pdu::{LoginStatus, Response};
use support::{INITIATOR, TARGET, Wire, login_request, origin};
use target_core::iscsi::mailbox::{CloseReason, Notice};
use target_core::iscsi::{Auth, Ended, Limits, LoginError, Node, Origin, Policy, Portal, Way};

/// A login of `user` that has shown who it is, and has not asked for its session yet.
fn let_in(node: &Arc<Node>, user: &str, secret: &[u8]) -> Wire {
    let (mut wire, question) = asked(node, "8");
    let status = status(&mut wire, &security_over(), &question.answer(user, secret));
    assert!(status.is_success(), "{user}");
    wire
}

/// Asks for the session.
fn finish(wire: &mut Wire) -> LoginStatus {
    wire.send(&login_request(), &[]);
    match wire.next() {
        (Response::Login(response), _) => response.status,
        other => panic!("expected a login response, got {other:?}"),
    }
}

fn refusal(wire: &Wire) -> LoginError {
    match wire.connection.ended() {
        Some(Ended::LoginRefused(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn of_another() -> LoginError {
    LoginError::SessionOfAnother {
        initiator: INITIATOR.to_owned(),
    }
}

#[test]
fn who_was_let_in_before_a_session_began_may_not_end_it_either() {
    let node = locked_node(credentials());
    let mut bob = let_in(&node, OTHER_USER, OTHER_SECRET);
    let mut alice = let_in(&node, USER, SECRET);
    assert!(finish(&mut alice).is_success());
    assert_eq!(finish(&mut bob), LoginStatus::AuthorizationFailure);
    assert_eq!(refusal(&bob), of_another());
    alice.pump();
    alice.assert_alive();
}

#[test]
fn without_chap_a_tunnels_session_is_its_users_only() {
    let node = support::node(Limits::default());
    let by = |user: Option<&str>| Origin {
        portal: Portal {
            way: user.map_or(Way::Network, |user| Way::Tunnel {
                user: Some(user.to_owned()),
            }),
            ..Portal::default()
        },
        ..origin()
    };
    let come = |user| {
        let mut wire = Wire::coming_by(&node, by(user));
        wire.send(&login_request(), &encoded(&names()));
        wire
    };
    let mut ann = come(Some("ann"));
    ann.next();
    for other in [Some("bob"), None] {
        assert_eq!(refusal(&come(other)), of_another(), "{other:?}");
        ann.pump();
        ann.assert_alive();
    }
    let again = come(Some("ann"));
    ann.pump();
    assert_eq!(again.connection.ended(), None);
    assert_eq!(ann.connection.ended(), Some(Ended::Closed(CloseReason::Reinstated)));
}

#[test]
fn a_target_that_goes_during_the_login_says_so() {
    let node = support::node(Limits::default());
    let mut wire = Wire::new(&node);
    assert!(status(&mut wire, &security_over(), &names()).is_success());
    node.remove_target(TARGET, 1000).expect("the target");
    // RFC 7143 §11.13.5: 0204h.
    assert_eq!(finish(&mut wire), LoginStatus::TargetRemoved);
    assert_eq!(refusal(&wire), LoginError::TargetRemoved(TARGET.to_owned()));
    assert_eq!(
        status(&mut Wire::new(&node), &login_request(), &names()),
        LoginStatus::NotFound
    );
}

fn ask_for_chap(node: &Node) {
    node.target(TARGET).expect("the target").set_policy(Policy {
        auth: Auth::Chap,
        ..Policy::default()
    });
}

#[test]
fn who_came_before_chap_was_asked_for_does_not_stay() {
    let node = support::node(Limits::default());
    let target = node.target(TARGET).expect("the target");
    let mut session = Wire::logged_in(&node, &[]);
    let mut login = Wire::new(&node);
    assert!(status(&mut login, &security_over(), &names()).is_success());
    target.set_credentials(credentials());
    ask_for_chap(&node);
    session.pump();
    assert_eq!(
        session.connection.ended(),
        Some(Ended::Closed(CloseReason::Administrator))
    );
    drop(session);
    assert_eq!(finish(&mut login), LoginStatus::AuthenticationFailure);
    assert_eq!(target.session_count(), 0);
}

#[test]
fn who_is_no_user_any_more_does_not_stay() {
    let node = locked_node(credentials());
    let target = node.target(TARGET).expect("the target");
    let mut alice = let_in(&node, USER, SECRET);
    assert!(finish(&mut alice).is_success());
    let mut late = let_in(&node, USER, SECRET);
    let mut fewer = credentials();
    fewer.users.remove(USER);
    target.set_credentials(fewer);
    ask_for_chap(&node);
    alice.pump();
    assert_eq!(
        alice.connection.ended(),
        Some(Ended::Closed(CloseReason::Administrator))
    );
    drop(alice);
    assert_eq!(finish(&mut late), LoginStatus::AuthenticationFailure);
    assert_eq!(target.session_count(), 0);
}

#[test]
fn a_session_that_is_ending_is_not_waited_for_when_its_peer_takes_nothing() {
    let node = support::node(Limits::default());
    let mut session = Wire::logged_in(&node, &[]);
    let mut bytes = Vec::new();
    let ping = iscsi_pdu::NopOut {
        immediate: true,
        lun: Default::default(),
        itt: 7,
        ttt: iscsi_pdu::RESERVED_TAG,
        cmd_sn: session.cmd_sn,
        exp_stat_sn: iscsi_pdu::Serial(0),
    };
    session.framing.pdu(&ping, b"unread", &mut bytes);
    session.connection.receive(session.now, &mut &bytes[..]);
    // An answer that goes out if it can.
    session
        .connection
        .notice(session.now, Notice::Close(CloseReason::ColdReset));
    assert!(session.connection.ended().is_some() && !session.connection.transmit().is_empty());
    session
        .connection
        .notice(session.now, Notice::Close(CloseReason::Reinstated));
    assert!(session.connection.transmit().is_empty());
}
