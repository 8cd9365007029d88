//! TLS, with bytes of any kind instead of a peer, or with an attacker between two peers.

#[path = "../../tests/simulation/certificate/mod.rs"]
mod certificate;
mod end;
mod way;

use std::sync::LazyLock;

use serveloop::layer::tls::{ServerTls, Tls, TlsVersion};

use crate::input::{Input, pieces};
use certificate::{Clients, NAME};
use end::End;
use way::Way;

/// What both ends of all connections share.
struct Shared {
    server: ServerTls,
    clients: [Clients; 2],
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared {
    server: certificate::server(),
    clients: [TlsVersion::Tls12, TlsVersion::Tls13].map(Clients::new),
});

/// Either the sizes of pieces and a stream, which a server or a client reads; or what an
/// attacker does with the records between a client and a server. There is no panic and no endless loop, and memory
/// is bounded; what is wrong ends a connection with a reason and an alert; what is told was said, and
/// an end is told only if everything before it was.
///
/// # Panics
/// When it is otherwise.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(8) {
        0 => alone(server, input),
        kind @ 1..3 => alone(|| client(kind - 1), input),
        kind => between(client(kind % 2), server(), input),
    }
}

fn server() -> End {
    End::new(Tls::server(&SHARED.server), Some(0))
}

fn client(version: usize) -> End {
    let tls = SHARED.clients[version].client();
    End::new(Tls::client(&tls, NAME).expect("it is a name"), None)
}

/// An end that reads a stream without a key of the session. In whatever pieces it comes, the outcome
/// is that of the whole.
fn alone(make: impl Fn() -> End, mut input: Input<'_>) {
    let sizes = input.sizes();
    let stream = input.rest();
    let outcome = |pieces: &[&[u8]]| {
        let mut end = make();
        for piece in pieces {
            end.hear(piece);
        }
        end.hear_end();
        assert_eq!(*end.heard(), b"", "no plain text was sent");
        assert!(!end.was_told_end(), "no end was sent");
        (end.sent().len(), end.outcome())
    };

    let whole = outcome(&[stream]);
    assert_eq!(outcome(&pieces(stream, &sizes)), whole, "in {sizes:?}");
    assert_eq!(outcome(&pieces(stream, &[1])), whole, "byte by byte");
}

/// How often what is on the way may arrive.
const ROUNDS_MOST: usize = 100;

/// A client and a server, both of which send something, and an attacker between them.
fn between(client: End, server: End, mut input: Input<'_>) {
    let (mut ends, mut ways) = ([client, server], [Way::default(), Way::default()]);
    let size = 1 + input.below(64) * 8;
    let finishing = [input.below(4) > 0, input.below(4) > 0];

    for _ in 0..ROUNDS_MOST {
        let mut moved = false;
        for from in 0..2 {
            let sent = ends[from].sent();
            let changed = ways[from].carry(&sent, &mut input);
            moved |= !sent.is_empty() || !changed.is_empty();
            for piece in changed.chunks(size) {
                ends[1 - from].hear(piece);
            }
        }
        if !moved && finish(&mut ends, &mut ways, finishing) {
            break;
        }
    }

    let [client, server] = &ends;
    client.has_heard(server);
    server.has_heard(client);
    if !ways.iter().any(|way| way.is_hostile) {
        assert_eq!(client.heard().len(), server.said().len());
        assert_eq!(server.heard().len(), client.said().len());
    }
}

/// Ends what is silent, with or without an end mark. Returns whether everything was over.
///
/// With its debug assertions rustls panics if it wants to send an alert after the end mark, so an end
/// that has sent its mark is told nothing wrong.
fn finish(ends: &mut [End; 2], ways: &mut [Way; 2], finishing: [bool; 2]) -> bool {
    let mut over = true;
    for at in 0..2 {
        if finishing[at] && !ways[1 - at].is_hostile {
            ways[1 - at].is_left_alone = true;
            over &= !ends[at].finish();
        }
    }
    for end in ends {
        over &= !(over && end.hear_end());
    }
    over
}
