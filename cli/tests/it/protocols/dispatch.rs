//! `serve dispatch`: requests and replies in JSON, over every kind of socket and in every model.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::served::Served;
use crate::support::sockets::{Datagrams, Directory, Stream};

const SUM: &str = r#"{"action": "sum", "numbers": [1, 2, 3]}"#;
const SIX: &str = "{\"ok\":true,\"result\":6}\n";

/// The next line that comes, as JSON.
#[track_caller]
fn reply(client: &mut Stream) -> Value {
    serde_json::from_str(&client.receive_line()).expect("JSON")
}

#[test]
fn actions_are_called_in_every_model() {
    let models: [&[&str]; 5] = [
        &[],
        &["--workers", "2"],
        &["--model", "sequential"],
        &["--model", "threaded"],
        &["--model", "forking"],
    ];
    for model in models {
        let directory = Directory::new();
        for at in ["tcp://127.0.0.1:0", &directory.uri("unix", "socket")] {
            let served = Served::new(&[&["dispatch", "--listen", at], model].concat());
            let mut client = served.connect();
            client.send(SUM);
            client.expect(SIX);
            client.send(&format!("{SUM}{SUM}\n{}", &SUM[..20]));
            client.expect(&SIX.repeat(2));
            client.send(&SUM[20..]);
            client.expect(SIX);
            client.finish();
            client.expect_end();
            served.signal(Signal::TERM);
            assert_eq!(served.exit_code(), Some(0), "{model:?}");
        }
    }
}

#[test]
fn the_actions_that_there_are() {
    let served = Served::new(&["dispatch", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    client.send(r#"{"action":"echo","x":[{}],"y":"\u20ac"}"#);
    let expected = json!({"ok": true, "result": {"x": [{}], "y": "\u{20ac}"}});
    assert_eq!(reply(&mut client), expected);
    client.send(r#"{"action":"time"}"#);
    let time = reply(&mut client);
    let ago =
        jiff::Timestamp::now().as_second() - time["result"]["unix"].as_i64().expect("a number");
    assert!((0..60).contains(&ago), "{time}");
    client.send(r#"{"action":"help"}"#);
    let help = reply(&mut client);
    let names: Vec<_> = help["result"].as_object().expect("names").keys().collect();
    assert_eq!(names, ["echo", "help", "sum", "time"]);
}

/// A rounded number looks just like an exact one.
#[test]
fn sums_are_exact_or_refused() {
    let served = Served::new(&["dispatch", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    let sums = [
        ("[18446744073709551616,-1]", "18446744073709551615"),
        ("[-18446744073709551616,1]", "-18446744073709551615"),
        ("[9007199254740993,0.5]", "9007199254740993.5"),
        ("[0.1,0.2]", "0.3"),
        ("[1.10,1e2,-0]", "101.1"),
        ("[1e308,1e-300,-1e308]", "1e-300"),
        ("[-0]", "0"),
    ];
    for (numbers, expected) in sums {
        client.send(&format!("{{\"action\":\"sum\",\"numbers\":{numbers}}}"));
        let line = client.receive_line();
        let expected = format!("{{\"ok\":true,\"result\":{expected}}}");
        assert_eq!(line.trim_end(), expected);
    }
    for (numbers, code) in [
        ("[1e308,1e308]", "overflow"),
        ("[1,1e-2000]", "inexact"),
        ("[1e-999999999999999999999]", "inexact"),
    ] {
        client.send(&format!("{{\"action\":\"sum\",\"numbers\":{numbers}}}"));
        assert_eq!(reply(&mut client)["error"]["code"], code);
    }
}

#[test]
fn numbers_are_given_back_digit_by_digit() {
    let served = Served::new(&["dispatch", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    let numbers = "[1.10,1e2,1E+02,-0,-0.0,100000000000000000000000,0.30000000000000000001]";
    client.send(&format!("{{\"action\":\"echo\",\"x\":{numbers}}}"));
    let expected = format!("{{\"ok\":true,\"result\":{{\"x\":{numbers}}}}}");
    assert_eq!(client.receive_line().trim_end(), expected);
}

#[test]
fn errors_of_meaning_go_on_and_errors_of_text_do_not() {
    let served = Served::new(&["dispatch", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    for (request, code, at) in [
        (
            r#"{"action":"__import__"}"#,
            "unknown_action",
            json!("/action"),
        ),
        (
            r#"{"action":"sum","numbers":["1"]}"#,
            "wrong_type",
            json!("/numbers/0"),
        ),
        (
            r#"{"action":"sum","numbers":[{"a":1}]}"#,
            "wrong_type",
            json!("/numbers/0"),
        ),
        (
            r#"{"action":"echo","x":1e400}"#,
            "out_of_range",
            json!("/x"),
        ),
        (
            r#"{"action":"echo","x":{"$serde_json::private::Number":5}}"#,
            "reserved_key",
            json!("/x"),
        ),
        ("[]", "not_an_object", json!("")),
    ] {
        client.send(request);
        let reply = reply(&mut client);
        assert_eq!(reply["error"]["code"], code);
        assert_eq!(reply["error"]["at"], at);
    }
    client.send("{\"action\": oh}");
    assert_eq!(reply(&mut client)["error"]["code"], "invalid_json");
    client.expect_end();
    let mut next = served.connect();
    next.send(SUM);
    next.expect(SIX);
}

#[test]
fn depth_and_length_have_options() {
    let served = Served::new(&[
        "dispatch",
        "--max-depth",
        "2",
        "--max-frame",
        "1KiB",
        "--listen",
        "tcp://127.0.0.1:0",
    ]);
    let long = format!("\"{}\"", "x".repeat(1_100));
    for (request, code) in [("[[[", "too_deep"), (&long, "too_long")] {
        let mut client = served.connect();
        client.send(request);
        assert_eq!(reply(&mut client)["error"]["code"], code);
        client.expect_end();
    }
}

#[test]
fn datagrams_have_their_replies() {
    let directory = Directory::new();
    for at in ["udp://127.0.0.1:0", &directory.uri("unixgram", "socket")] {
        let served = Served::new(&["dispatch", "--model", "threaded", "--listen", at]);
        let client = Datagrams::connect(served.uri(0), &directory);
        client.send(SUM);
        client.expect(SIX);
        client.send("{\"action\":");
        let error = json!({
            "code": "truncated", "message": "the stream ended inside a value", "at": 10,
        });
        client.expect(&format!("{{\"ok\":false,\"error\":{}}}\n", ordered(&error)));
        client.send(SUM);
        client.expect(SIX);
    }
}

/// An error as it is sent: code, message, place.
fn ordered(error: &Value) -> String {
    let Value::Object(error) = error else {
        panic!("an object");
    };
    let fields = ["code", "message", "at"].map(|name| format!("{:?}:{}", name, error[name]));
    format!("{{{}}}", fields.join(","))
}
