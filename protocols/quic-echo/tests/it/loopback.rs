//! quinn's own client, over loopback.

use std::net::UdpSocket;
use std::time::Duration;

use quinn::{ConnectionError, ReadError, TransportErrorCode, VarInt, WriteError};
use serveloop::{Config, Limits};
use serveloop_quic_echo::{Settings, Validation};

use crate::support::link::{first_datagram, lose_over};
use crate::support::serving::{Serving, all, config, echo, endpoint, run};
use crate::support::{bytes, client_of, server, wordy_server};

fn serving() -> Serving {
    Serving::with(server(&Settings::default()), config(), 1)
}

/// Returns the code and the reason with which the peer has closed a connection.
fn farewell(error: ConnectionError) -> (u64, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8(close.reason.to_vec()).unwrap();
            (close.error_code.into_inner(), reason)
        }
        error => panic!("{error}"),
    }
}

fn is_refusal(error: &ConnectionError) -> bool {
    let refused = TransportErrorCode::CONNECTION_REFUSED;
    matches!(error, ConnectionError::ConnectionClosed(close) if close.error_code == refused)
}

#[test]
fn sixteen_mib_come_back() {
    let serving = serving();
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        let connection = connecting.await.unwrap();
        echo(&connection, 16 << 20).await;
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
    });

    let statistics = serving.stop();
    assert_eq!(statistics.datagram_sessions, 1);
    assert_eq!(statistics.datagram_sessions_ended, 1);
    assert_eq!(statistics.datagrams_failed, 0);
    // Nothing that was sent was too much for a peer that is not confirmed.
    assert_eq!(statistics.datagrams_amplified, 0);
}

#[test]
fn streams_and_connections_of_one_socket_are_apart() {
    let serving = serving();
    run(async {
        let endpoint = endpoint();
        let first = endpoint.connect(serving.address, "localhost").unwrap();
        let second = endpoint.connect(serving.address, "localhost").unwrap();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        tokio::join!(
            echo(&first, 300_000),
            echo(&first, 0),
            echo(&first, 1),
            echo(&second, 500_000),
            echo(&second, 70_000),
        );

        // The end of one is not the end of the other.
        first.close(VarInt::from_u32(0), b"");
        echo(&second, 10_000).await;
    });
    assert_eq!(serving.stop().datagram_sessions, 1);
}

#[test]
fn a_stream_may_be_given_up() {
    let serving = serving();
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        let connection = connecting.await.unwrap();

        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(b"half").await.unwrap();
        let mut half = [0; 4];
        receive.read_exact(&mut half).await.unwrap();
        send.reset(VarInt::from_u32(9)).unwrap();
        let ended = receive.read_to_end(1).await.unwrap_err();
        let nine = ReadError::Reset(VarInt::from_u32(9));
        assert_eq!(ended, quinn::ReadToEndError::Read(nine));

        // Who wants no echo need not send any more.
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        receive.stop(VarInt::from_u32(8)).unwrap();
        let endless = bytes(1_000);
        let stopped = loop {
            if let Err(error) = send.write_all(&endless).await {
                break error;
            }
        };
        assert_eq!(stopped, WriteError::Stopped(VarInt::from_u32(8)));

        // Streams that were given up make room for others: a connection has 100 at a time.
        for _ in 0..150 {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            receive.stop(VarInt::from_u32(8)).unwrap();
        }
        echo(&connection, 10_000).await;
    });
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let settings = Settings {
        max_connections: 2,
        ..Settings::default()
    };
    let serving = Serving::with(server(&settings), config(), 1);
    run(async {
        let endpoint = endpoint();
        let connect = || endpoint.connect(serving.address, "localhost").unwrap();
        let _first = connect().await.unwrap();
        let second = connect().await.unwrap();
        let third = connect().await.unwrap_err();
        assert!(is_refusal(&third), "{third}");
        echo(&second, 10_000).await;
    });
}

#[test]
fn a_retry_validates_the_address() {
    let settings = Settings {
        validation: Validation::ByRetry,
        ..Settings::default()
    };
    // A flight that is too long for an address that is not confirmed may be sent at once.
    let serving = Serving::with(wordy_server(&settings), config(), 1);
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        echo(&connecting.await.unwrap(), 100_000).await;
    });

    let statistics = serving.stop();
    assert_eq!(statistics.datagram_sessions, 2);
    assert_eq!(statistics.datagrams_amplified, 0);
}

#[test]
fn a_long_first_flight_waits_for_the_path() {
    let serving = Serving::with(wordy_server(&Settings::default()), config(), 1);
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        echo(&connecting.await.unwrap(), 100_000).await;
    });
    assert_eq!(serving.stop().datagrams_amplified, 0);
}

#[test]
fn a_forged_address_gets_three_times_what_it_sent() {
    let serving = Serving::with(wordy_server(&Settings::default()), config(), 1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1_500)))
        .unwrap();
    let initial = first_datagram();
    socket.send_to(&initial, serving.address).unwrap();

    // It asks again and again for what was lost, but has nothing left to send it with.
    let mut answered = 0;
    let mut buffer = [0; 2_000];
    while let Ok(count) = socket.recv(&mut buffer) {
        answered += count;
    }
    assert!(answered > initial.len(), "{answered} bytes");
    assert!(answered <= 3 * initial.len(), "{answered} bytes");
    drop(socket);
    assert_eq!(serving.stop().datagrams_amplified, 0);
}

#[test]
fn without_sessions_a_client_is_refused() {
    let config = Config {
        sessions: false,
        ..config()
    };
    let serving = Serving::with(server(&Settings::default()), config, 1);
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        let error = connecting.await.unwrap_err();
        assert!(is_refusal(&error), "{error}");
    });
}

#[test]
fn a_client_beyond_the_sessions_is_refused_and_disturbs_nobody() {
    let config = Config {
        max_sessions: 1,
        ..config()
    };
    let serving = Serving::with(server(&Settings::default()), config, 1);
    run(async {
        let (first, second) = (endpoint(), endpoint());
        let connecting = first.connect(serving.address, "localhost").unwrap();
        let connection = connecting.await.unwrap();
        for _ in 0..3 {
            let connecting = second.connect(serving.address, "localhost").unwrap();
            let error = connecting.await.unwrap_err();
            assert!(is_refusal(&error), "{error}");
            echo(&connection, 50_000).await;
        }

        // Its place is free when it has gone.
        connection.close(VarInt::from_u32(0), b"");
        first.wait_idle().await;
        let connecting = loop {
            let connecting = second.connect(serving.address, "localhost").unwrap();
            match connecting.await {
                Ok(connection) => break connection,
                Err(error) => assert!(is_refusal(&error), "{error}"),
            }
        };
        echo(&connecting, 50_000).await;
    });
}

#[test]
fn what_a_small_buffer_drops_is_sent_again() {
    let config = Config {
        receive_buffer: Some(8_192),
        ..config()
    };
    let serving = Serving::with(server(&Settings::default()), config, 1);
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        let connection = connecting.await.unwrap();
        echo(&connection, 1 << 20).await;
        let lost = connection.stats().path.lost_packets;
        assert!(lost > 0, "the buffer was not small enough");
    });
}

#[test]
fn a_crowd_is_served() {
    let serving = serving();
    run(async {
        let clients = (0..16).map(|_| async {
            let endpoint = endpoint();
            let connecting = endpoint.connect(serving.address, "localhost").unwrap();
            let connection = connecting.await.unwrap();
            echo(&connection, 40_000).await;
            connection.close(VarInt::from_u32(0), b"");
        });
        all(clients).await;
    });
    let statistics = serving.stop();
    assert_eq!(statistics.datagram_sessions, 16);
    assert_eq!(statistics.datagrams_amplified, 0);
}

#[test]
fn another_protocol_is_told() {
    let serving = serving();
    run(async {
        let endpoint = endpoint();
        let other = client_of(b"h3", quinn::TransportConfig::default());
        let connecting = endpoint
            .connect_with(other, serving.address, "localhost")
            .unwrap();
        let error = connecting.await.unwrap_err().to_string();
        assert!(error.contains("known protocol"), "{error}");
    });
    assert_eq!(serving.stop().datagrams_failed, 0);
}

#[test]
fn a_client_that_moves_is_told_by_a_reset() {
    let serving = serving();
    run(async {
        let endpoint = endpoint();
        let connecting = endpoint.connect(serving.address, "localhost").unwrap();
        let connection = connecting.await.unwrap();
        echo(&connection, 10_000).await;

        endpoint
            .rebind(UdpSocket::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let error = connection.closed().await;
        assert_eq!(error, ConnectionError::Reset);
    });
}

#[test]
fn a_shutdown_is_told_to_all() {
    let serving = serving();
    run(async {
        let endpoints = [endpoint(), endpoint()];
        let mut connections = Vec::new();
        for endpoint in &endpoints {
            let connecting = endpoint.connect(serving.address, "localhost").unwrap();
            let connection = connecting.await.unwrap();
            echo(&connection, 10_000).await;
            connections.push(connection);
        }

        serving.handle.shutdown();
        for connection in &connections {
            let (code, reason) = farewell(connection.closed().await);
            assert_eq!((code, reason.as_str()), (0, "the server shuts down"));
        }
    });

    let statistics = serving.join();
    assert_eq!(statistics.datagram_sessions_ended, 2);
    assert_eq!(statistics.datagrams_failed, 0);
}

#[test]
fn a_deadline_of_the_server_is_told() {
    let limits = Limits {
        idle_timeout: Some(Duration::from_millis(300)),
        ..Limits::default()
    };
    let config = Config { limits, ..config() };
    let serving = Serving::with(server(&Settings::default()), config, 1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(serving.address).unwrap();
    let lost = lose_over(&socket);
    assert!(lost.contains("closed by peer: timed out"), "{lost}");
}

#[test]
fn workers_share_the_clients() {
    let config = Config {
        reuse_port: true,
        ..config()
    };
    let serving = Serving::with(server(&Settings::default()), config, 2);
    run(async {
        // All of them stay: a port that is free again may be given to the next, which is then the same peer.
        let endpoints: Vec<_> = (0..8).map(|_| endpoint()).collect();
        for endpoint in &endpoints {
            let connecting = endpoint.connect(serving.address, "localhost").unwrap();
            let connection = connecting.await.unwrap();
            echo(&connection, 100_000).await;
            connection.close(VarInt::from_u32(0), b"");
            endpoint.wait_idle().await;
        }
    });
    let statistics = serving.stop();
    assert_eq!(statistics.datagram_sessions, 8);
    assert_eq!(statistics.datagram_sessions_ended, 8);
}
