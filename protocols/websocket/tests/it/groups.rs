//! What others have for a WebSocket to send, and what becomes of it when that ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serveloop::service::{Lagging, PostError};
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Limits, Result};
use serveloop_websocket::{
    CloseCode, Message, MessageGroup, MessageOutbox, MessageProtocol, MessageTransport, WebSocket,
};

use crate::support::{CLOSE, QUIET, TEXT, closed, farewell, frame, open, patient, plain};

/// Publishes what it is sent, and closes if it is told so.
struct Member {
    group: MessageGroup,
    outbox: Rc<RefCell<Option<MessageOutbox>>>,
}

impl MessageProtocol for Member {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
        assert!(self.group.join("all", client));
        *self.outbox.borrow_mut() = Some(client.outbox());
        Ok(())
    }

    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        match message {
            Message::Text("close") => client.close(CloseCode::NORMAL, ""),
            Message::Text("leave") => assert!(self.group.leave("all", client.id())),
            Message::Text(_) => {
                self.group.publish("all", message);
            }
            Message::Binary(_) => {
                self.group.publish_to_others("all", client.id(), message);
            }
        }
        Ok(())
    }
}

struct Client {
    session: MemorySession<WebSocket<Member>>,
    outbox: MessageOutbox,
}

fn join(group: &MessageGroup, limits: Limits) -> Client {
    let outbox = Rc::default();
    let member = Member {
        group: group.clone(),
        outbox: Rc::clone(&outbox),
    };
    let session = MemorySession::with_config(WebSocket::new(member, QUIET), patient(limits));
    let outbox = outbox.take().expect("opened");
    Client { session, outbox }
}

impl Client {
    fn sent(&mut self) -> Vec<u8> {
        self.session.run();
        self.session.sent()
    }
}

#[test]
fn what_is_published_goes_to_every_member() {
    let group = MessageGroup::new(Lagging::DropOldest);
    let mut members: Vec<_> = (0..3).map(|_| join(&group, Limits::default())).collect();
    assert_eq!(group.members("all"), 3);

    let long = "x".repeat(100_000);
    members[0].session.receive(&frame(TEXT, "hello"));
    members[1].session.receive(&frame(TEXT, &long));
    for member in &mut members {
        assert!(member.sent() == [plain(TEXT, "hello"), plain(TEXT, &long)].concat());
    }

    members[2].session.receive(&frame(0x82, "others"));
    assert_eq!(members[0].sent(), plain(0x82, "others"));
    assert_eq!(members[2].sent(), b"");

    members[0].session.receive(&frame(TEXT, "leave"));
    members[1].session.receive_eof();
    assert_eq!(group.members("all"), 1);
    let published = group.publish("all", "who is left?");
    assert_eq!((published.sent, published.lagging), (1, 0));
    assert_eq!(members[0].sent(), b"");
    assert_eq!(members[2].sent(), plain(TEXT, "who is left?"));
}

#[test]
fn nothing_is_sent_after_a_close_frame() {
    let group = MessageGroup::new(Lagging::DropOldest);
    let mut member = join(&group, Limits::default());
    group.publish("all", "before");
    assert_eq!(member.sent(), plain(TEXT, "before"));
    member.session.receive(&frame(TEXT, "close"));
    group.publish("all", "after");
    member.outbox.post("after").unwrap();
    member.outbox.close(CloseCode::POLICY, "after").unwrap();
    assert_eq!(member.sent(), closed(1000, ""));

    member.session.receive(&frame(CLOSE, farewell(1000, "")));
    assert!(matches!(member.session.reason(), Some(CloseReason::Closed)));
    assert_eq!(member.outbox.post("later"), Err(PostError::Closed));
    assert_eq!(group.publish("all", "later").sent, 0);
}

#[test]
fn others_close_a_websocket_with_its_handshake() {
    let group = MessageGroup::new(Lagging::DropOldest);
    let mut member = join(&group, Limits::default());
    member.session.stop_taking();
    member.outbox.post("one").unwrap();
    member
        .outbox
        .close(CloseCode::SERVICE_RESTART, "soon back")
        .unwrap();
    member.outbox.post("not sent").unwrap();
    member.session.run();
    member.session.take_in_steps(1);
    let expected = [plain(TEXT, "one"), closed(1012, "soon back")].concat();
    assert_eq!(member.sent(), expected);
    assert!(member.session.reason().is_none(), "the answer is awaited");

    member.session.receive(&frame(TEXT, "not seen"));
    member.session.advance(Duration::from_secs(5));
    assert!(matches!(member.session.reason(), Some(CloseReason::Closed)));

    let mut member = join(&group, Limits::default());
    member.outbox.abort();
    member.session.run();
    assert!(matches!(
        member.session.reason(),
        Some(CloseReason::Aborted)
    ));
    assert!(member.outbox.is_closed());
}

/// A member that takes nothing loses whole messages, and what it is sent later is in order.
#[test]
fn a_member_that_lags_loses_whole_messages() {
    let limits = Limits {
        high_water: 100,
        low_water: 50,
        max_posted: 1_000,
        ..Limits::default()
    };
    let group = MessageGroup::new(Lagging::DropOldest);
    let mut member = join(&group, limits);
    member.session.stop_taking();
    for number in 0..1_000 {
        group.publish("all", &format!("{number:03}"));
        member.session.run();
        assert!(member.outbox.pending() <= 1_000);
    }
    member.session.take_in_steps(7);

    let sent = member.sent();
    let frames: Vec<_> = sent.chunks(5).collect();
    let mut last = None;
    for frame in &frames {
        assert_eq!(frame[..2], [TEXT, 3]);
        let number: u32 = std::str::from_utf8(&frame[2..]).unwrap().parse().unwrap();
        assert!(last < Some(number));
        last = Some(number);
    }
    assert_eq!(last, Some(999));
    assert!(frames.len() < 300, "{}", frames.len());
}

#[test]
fn a_member_that_lags_can_be_disconnected() {
    let limits = Limits {
        high_water: 100,
        low_water: 50,
        max_posted: 1_000,
        ..Limits::default()
    };
    let group = MessageGroup::new(Lagging::Close);
    let (mut slow, mut quick) = (join(&group, limits.clone()), join(&group, limits));
    slow.session.stop_taking();
    for _ in 0..1_000 {
        group.publish("all", "news");
        slow.session.run();
        assert_eq!(quick.sent(), plain(TEXT, "news"));
    }
    assert!(matches!(slow.session.reason(), Some(CloseReason::Lagging)));
    assert_eq!(group.members("all"), 1);
}

#[test]
fn an_outbox_is_one_however_often_it_is_asked_for() {
    struct Twice;
    impl MessageProtocol for Twice {
        fn message_received(
            &mut self,
            _: Message<'_>,
            client: &mut MessageTransport<'_>,
        ) -> Result {
            let (one, other) = (client.outbox(), client.outbox());
            assert_eq!((one.id(), one.peer()), (client.id(), client.peer()));
            one.post("1").expect("room");
            other.post(b"2").expect("room");
            Ok(())
        }
    }
    let mut session = open(Twice);
    session.receive(&frame(TEXT, ""));
    session.run();
    assert_eq!(
        session.sent(),
        [plain(TEXT, "1"), plain(0x82, "2")].concat()
    );
}
