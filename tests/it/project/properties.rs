//! Buffers, addresses and sessions compared with models of them, on generated inputs.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::driver::Buffer;
use serveloop_fuzz::{
    TARGETS, addresses, dispatch, framings, http, http_server, memcached, resp, session,
    simulation, tls, websocket, words,
};

use crate::support::cases;

/// A growth may add so much beyond what is needed, and so much may stay in front.
const GROWTH: usize = 64 * 1024;
const SLACK: usize = 4 * 1024;

#[derive(Clone, Debug)]
enum Change {
    Push(usize),
    Consume(prop::sample::Index),
    Clear,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let sizes = prop_oneof![0..20_usize, 0..5_000_usize, Just(70_000)];
    let change = prop_oneof![
        6 => sizes.prop_map(Change::Push),
        6 => any::<prop::sample::Index>().prop_map(Change::Consume),
        1 => Just(Change::Clear),
    ];
    vec(change, 0..60)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_buffer_is_a_queue_of_bytes(changes in changes()) {
        let mut buffer = Buffer::new();
        let mut model = VecDeque::new();
        let mut most = 0;
        for (number, change) in changes.iter().enumerate() {
            match change {
                Change::Push(count) => {
                    let data: Vec<u8> = (0..*count).map(|at| (at * 7 + number) as u8).collect();
                    buffer.push(&data);
                    model.extend(data);
                }
                Change::Consume(count) => {
                    let count = count.index(model.len() + 1);
                    buffer.consume(count);
                    model.drain(..count);
                }
                Change::Clear => {
                    buffer.clear();
                    model.clear();
                }
            }
            most = most.max(model.len());
            prop_assert_eq!(buffer.as_slice(), model.make_contiguous());
            prop_assert_eq!((buffer.len(), buffer.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(buffer.capacity() <= 2 * most + GROWTH + SLACK, "{}", buffer.capacity());
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn any_text_is_an_address_or_a_clear_error(kind in any::<u8>(), text in ".{0,40}") {
        addresses::target(&[&[kind], text.as_bytes()].concat());
    }

    #[test]
    fn an_address_is_read_as_it_was_written(bytes in vec(any::<u8>(), 0..40)) {
        addresses::target(&bytes);
    }

    #[test]
    fn a_framing_is_its_model(bytes in vec(any::<u8>(), 0..120)) {
        framings::target(&bytes);
    }

    #[test]
    fn dispatch_is_its_model(bytes in spelled()) {
        dispatch::target(&bytes);
    }

    #[test]
    fn resp_is_its_model(bytes in vec(prop_oneof![4 => 1..25_u8, 1 => 32..127_u8, 1 => any::<u8>()], 0..60)) {
        resp::target(&bytes);
    }

    #[test]
    fn a_response_is_its_model(bytes in spelled()) {
        http::target(&bytes);
    }

    #[test]
    fn memcached_is_its_model(bytes in commands()) {
        memcached::target(&bytes);
    }

    #[test]
    fn a_websocket_is_its_model(bytes in vec(any::<u8>(), 0..120)) {
        websocket::target(&bytes);
    }

    #[test]
    fn http_is_its_model(bytes in spelled_with(32)) {
        http_server::target(&bytes);
    }

    #[test]
    fn a_command_line_is_that_of_others(bytes in vec(command_line_byte(), 0..40)) {
        words::target(&bytes);
    }

    /// Four bytes a step. What fails prints the steps; kept as a file of the corpus, the bytes are
    /// tried again by every run.
    #[test]
    fn a_session_is_its_model(bytes in vec(any::<u8>(), 0..300)) {
        session::target(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_simulated_server_is_well(bytes in vec(any::<u8>(), 1..300)) {
        simulation::target(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// Most of the bytes are what an attacker between a client and a server does.
    #[test]
    fn tls_tells_what_was_said_or_ends(bytes in vec(any::<u8>(), 1..100)) {
        tls::target(&bytes);
    }
}

/// What is read before a stream, and a stream of words.
fn spelled() -> impl Strategy<Value = Vec<u8>> {
    spelled_with(9)
}

fn spelled_with(words_end: u8) -> impl Strategy<Value = Vec<u8>> {
    let stream = vec(
        prop_oneof![4 => 1..words_end, 4 => 32..127_u8, 1 => any::<u8>()],
        0..40,
    );
    (vec(any::<u8>(), 8), stream).prop_map(|(start, stream)| [start, stream].concat())
}

/// The same with as many words as there are commands and their parts.
fn commands() -> impl Strategy<Value = Vec<u8>> {
    let stream = vec(
        prop_oneof![8 => 1..45_u8, 4 => Just(22), 1 => any::<u8>()],
        0..60,
    );
    (vec(any::<u8>(), 5), stream).prop_map(|(start, stream)| [start, stream].concat())
}

fn command_line_byte() -> impl Strategy<Value = u8> {
    let special = proptest::sample::select(&b"'\"\\ \n\r\t#$`\0"[..]);
    prop_oneof![3 => special, 1 => any::<u8>()]
}

/// What the fuzzer once found worth keeping.
#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let files = fs::read_dir(corpus.join(name)).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "{name} has {} files", files.len());
        for file in files {
            eprintln!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
    let directories = fs::read_dir(corpus).unwrap().count();
    assert_eq!(directories, TARGETS.len(), "each directory has a target");
}
