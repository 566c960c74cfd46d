//! The transport as its users meet it: real SSH on loopback, our own client, and the stock one.
//!
//! No test sleeps for a condition; each waits for it and fails when it does not come in time. The
//! floods take a few seconds each, or `PAXOS_FLOOD_SECONDS`.

mod transport_fixture;

use bytes::Bytes;
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::transport::Lane;
use paxos_ssh::transport::client::{self, ChannelEvent, ClientIdentity, DialError};
use paxos_ssh::transport::identity::PeerExpiry;
use paxos_ssh::transport::server::LinkDown;
use paxos_ssh::transport::session::{ExecRequest, ExecSession};
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::wire::frame::{self, FrameKind, Hello};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transport_fixture::*;

fn flood_time() -> Duration {
    let seconds = std::env::var("PAXOS_FLOOD_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

// Requests of people.

#[tokio::test]
async fn exec_returns_output_errors_and_status() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut channel = connection.exec("both out err 7").await.unwrap();
    let got = collect(&mut channel).await;
    assert_eq!(got, (b"out".to_vec(), b"err".to_vec(), Some(7)));
    let seen = node.seen.lock().unwrap();
    assert_eq!(seen[0], "alice Exec(\"both out err 7\")");
}

#[tokio::test]
async fn every_byte_of_input_and_output_arrives() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let channel = connection.exec("cat").await.unwrap();
    let sent: Vec<u8> = (0..20_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let input = Bytes::from(sent.clone());
    let sender = channel.sender.clone();
    let sending = tokio::spawn(async move {
        for piece in input.chunks(100_000) {
            sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        sender.eof().await.unwrap();
    });
    let mut channel = channel;
    let (out, _, exit) = within("echo", collect(&mut channel)).await;
    sending.await.unwrap();
    assert_eq!(exit, Some(0));
    assert!(out == sent, "{} bytes of {} came back", out.len(), sent.len());
}

#[tokio::test]
async fn a_handler_that_drops_its_session_leaves_an_exit_status() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut channel = connection.exec("drop").await.unwrap();
    assert_eq!(collect(&mut channel).await.2, Some(1));
}

#[tokio::test]
async fn a_fast_client_is_held_back_and_other_channels_go_on() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut slow = connection.exec("slow").await.unwrap();
    let sender = slow.sender.clone();
    let sent = 64 << 20;
    let piece = Bytes::from(vec![7; 64 << 10]);
    let sending = tokio::spawn(async move {
        for _ in 0..sent / piece.len() {
            sender.send(piece.clone()).await.unwrap();
        }
        sender.eof().await.unwrap();
    });
    within("the input to clog", async {
        while !node.stuck.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // While the first channel's input is clogged, whole requests pass on others.
    for _ in 0..20 {
        let mut quick = connection.exec("both out err 0").await.unwrap();
        assert_eq!(within("an answer", collect(&mut quick)).await.2, Some(0));
    }
    let mut cat = connection.exec("cat").await.unwrap();
    cat.send(Bytes::from(vec![1; 100_000])).await.unwrap();
    cat.eof().await.unwrap();
    assert_eq!(within("an echo", collect(&mut cat)).await.0.len(), 100_000);
    assert!(!sending.is_finished(), "nobody held the sender back");
    node.go.notify_waiters();
    let (out, _, exit) = within("the rest", collect(&mut slow)).await;
    sending.await.unwrap();
    assert_eq!(exit, Some(0));
    assert_eq!(String::from_utf8(out).unwrap(), format!("{sent}"));
    assert_eq!(node.counters.stdin_overflows.value(), 0);
}

#[tokio::test]
async fn both_directions_of_one_connection_may_be_full() {
    // Many channels with both sides sending at once dead-lock russh without the write-behind
    // buffer.
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut running = Vec::new();
    for _ in 0..16 {
        let channel = connection.exec("talk 12000000").await.unwrap();
        running.push(tokio::spawn(async move {
            let sender = channel.sender.clone();
            let sending = tokio::spawn(async move {
                let piece = Bytes::from(vec![3; 60_000]);
                for _ in 0..12_000_000 / piece.len() {
                    sender.send(piece.clone()).await.unwrap();
                }
                sender.eof().await.unwrap();
            });
            let mut channel = channel;
            let (out, _, exit) = collect(&mut channel).await;
            sending.await.unwrap();
            (out.len(), exit)
        }));
    }
    for channel in running {
        let (bytes, exit) = within("both directions", channel).await.unwrap();
        assert_eq!((bytes, exit), (12_000_000, Some(0)));
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_interrupts_is_noticed() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut channel = connection.exec("wait").await.unwrap();
    channel.sender.interrupt().await.unwrap();
    let (_, err, exit) = within("the interrupt", collect(&mut channel)).await;
    assert_eq!((&err[..], exit), (&b"interrupted"[..], Some(130)));

    let channel = connection.exec("wait").await.unwrap();
    drop(channel);
    within("the departure", node.wait_seen("gone")).await;
    let channel = connection.exec("wait").await.unwrap();
    connection.cut();
    drop(channel);
    within("the cut", node.wait_seen_times("gone", 2)).await;
}

#[tokio::test]
async fn unknown_subsystems_and_too_many_channels_are_refused() {
    let cluster = Cluster::new();
    let settings = Settings { channels_max: 3, channels_lifetime_max: 12, ..Settings::default() };
    let node = cluster.node(1, settings).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let refused = connection.subsystem("sftp").await.err().unwrap();
    assert!(refused.to_string().contains("sftp"), "{refused}");
    let rpc = connection.subsystem("paxos-rpc").await.unwrap();
    drop(rpc);

    let held = [connection.exec("wait").await.unwrap(), connection.exec("wait").await.unwrap()];
    within("a refusal", async {
        // The channels closed above may still count for a moment.
        while let Ok(one_more) = connection.exec("wait").await {
            let over = connection.exec("wait").await;
            drop(one_more);
            if over.is_err() {
                break;
            }
        }
    })
    .await;
    drop(held);
    // Over its life, a connection gets only so many.
    let mut opened = 0;
    let over = loop {
        opened += 1;
        match connection.exec("both out err 0").await {
            Ok(mut channel) => assert_eq!(collect(&mut channel).await.2, Some(0)),
            Err(_) if opened > 12 => break true,
            Err(_) => tokio::task::yield_now().await,
        }
        if opened > 1000 {
            break false;
        }
    };
    assert!(over, "channels are not bounded over a connection's life");
}

// Who gets in.

#[tokio::test]
async fn only_known_keys_and_certificates_get_in_and_others_learn_nothing() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let plain = cluster.listed_key("bob");
    assert!(node.dial_as(&plain).await.is_ok());

    let stranger = ClientIdentity::Key(Arc::new(new_key()));
    let other = Cluster::new();
    let mut texts = Vec::new();
    for identity in [stranger, other.person("alice"), cluster.wrong_type("alice")] {
        let error = node.dial_as(&identity).await.err().unwrap();
        assert!(matches!(error, DialError::Denied { .. }), "{error}");
        texts.push(error.to_string());
    }
    assert_eq!(node.counters.refused_keys.value(), 3);
    assert_eq!(node.counters.authenticated.value(), 1);
    // The same words each time, but for what was presented.
    assert!(texts.iter().all(|text| text.contains("does not say why")), "{texts:?}");
    assert!(node.dial_as(&cluster.person("alice")).await.is_ok());
}

#[tokio::test]
async fn a_host_that_is_not_the_expected_one_is_not_talked_to() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let mut endpoint = node.endpoint();
    endpoint.host_principal = "node2.test.paxos".to_string();
    let alice = cluster.person("alice");
    let error = client::dial(&endpoint, &alice, &Settings::default()).await.err().unwrap();
    assert!(matches!(error, DialError::Host { .. }), "{error}");

    let mut endpoint = node.endpoint();
    endpoint.check = client::HostCheck::by(vec![new_key().public_key().clone()]);
    let error = client::dial(&endpoint, &alice, &Settings::default()).await.err().unwrap();
    assert!(matches!(error, DialError::Host { .. }), "{error}");

    let mut endpoint = node.endpoint();
    endpoint.check = client::HostCheck::by(vec![cluster.host_authority()]);
    assert!(client::dial(&endpoint, &alice, &Settings::default()).await.is_ok());
}

#[tokio::test]
async fn silent_strangers_crowd_nobody_out() {
    let cluster = Cluster::new();
    let settings = Settings { unauthenticated_max: 8, ..Settings::default() };
    let node = cluster.node(1, settings).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(tokio::net::TcpStream::connect(node.address).await.unwrap());
    }
    assert!(node.dial_as(&cluster.person("alice")).await.is_ok());
    // The oldest were cut: their streams end.
    let mut rest = Vec::new();
    within("the cut", silent[0].read_to_end(&mut rest)).await.ok();
    assert!(node.counters.unauthenticated_cut.value() >= 22);
}

#[tokio::test]
async fn a_stranger_that_takes_too_long_is_cut() {
    let cluster = Cluster::new();
    let settings = Settings { login_grace: Duration::from_millis(100), ..Settings::default() };
    let node = cluster.node(1, settings).await;
    let mut silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let mut rest = Vec::new();
    within("the cut", silent.read_to_end(&mut rest)).await.ok();
    let mut half = tokio::net::TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"SSH-2.0-half\r\n").await.unwrap();
    within("the cut", half.read_to_end(&mut rest)).await.ok();
    assert!(node.dial_as(&cluster.person("alice")).await.is_ok());
}

#[tokio::test]
async fn a_dial_that_nobody_answers_ends_in_time() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut endpoint = node.endpoint();
    endpoint.port = deaf.local_addr().unwrap().port();
    let settings = Settings { dial_timeout: Duration::from_millis(200), ..Settings::default() };
    let started = Instant::now();
    let error = client::dial(&endpoint, &cluster.person("a"), &settings).await.err().unwrap();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(deaf);
    let error = client::dial(&endpoint, &cluster.person("a"), &settings).await.err().unwrap();
    assert!(error.is_refused(), "{error}");
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye_and_waits_for_nobody() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let _channel = connection.exec("wait").await.unwrap();
    let _silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let started = Instant::now();
    node.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let reason = within("the goodbye", connection.closed()).await;
    assert!(reason.contains("stopping"), "{reason}");
    let error = node.dial_as(&cluster.person("alice")).await.err().unwrap();
    assert!(error.is_refused(), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let error = cluster.bind_error(&node.address.to_string()).await;
    assert!(error.contains(&node.address.to_string()) && error.contains("ss -ltnp"), "{error}");
}

/// Whether this machine has an address of IPv6, if only to itself.
fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("NOT RUN: this machine has no IPv6");
    }
    has
}

#[tokio::test]
async fn both_families_are_listened_to_on_one_port() {
    if !has_ipv6() {
        return;
    }
    let cluster = Cluster::new();
    let bind =
        async |port: u16| cluster.bind(&[format!("0.0.0.0:{port}"), format!("[::]:{port}")]).await;
    // Somebody else may take the port before it is bound in the other family.
    let server = within("a port", async {
        loop {
            let free = std::net::TcpListener::bind("[::]:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            match bind(port).await {
                Ok(server) => return server,
                Err(error) => println!("{error}"),
            }
        }
    })
    .await;
    let [four, six] = server.addresses()[..] else { panic!("{:?}", server.addresses()) };
    assert!(four.is_ipv4() && six.is_ipv6() && four.port() == six.port(), "{four} {six}");
    for host in ["127.0.0.1", "::1"] {
        tokio::net::TcpStream::connect((host, four.port())).await.unwrap();
    }
}

#[tokio::test]
async fn all_addresses_of_ipv6_alone_are_those_of_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let server = Cluster::new().bind(&["[::]:0".to_owned()]).await.unwrap();
    let port = server.addresses()[0].port();
    for host in ["127.0.0.1", "::1"] {
        tokio::net::TcpStream::connect((host, port)).await.unwrap();
    }
}

// Links between nodes.

#[tokio::test]
async fn a_member_whose_certificate_ran_out_keeps_its_links_unless_told_otherwise() {
    let cluster = Cluster::new();
    cluster.expire_two(PeerExpiry::Warn);
    let (_one, two) = cluster.pair(Settings::default()).await;
    assert!(two.counters.dials_failed.value() == 0);

    let cluster = Cluster::new();
    cluster.expire_two(PeerExpiry::Enforce);
    let one = cluster.node(1, Settings::default()).await;
    let two = cluster.node(2, Settings::default()).await;
    two.know(&[&one]);
    within("a refusal", async {
        while two.counters.dials_failed.value() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(two.counters.links_up.value(), 0);
    assert!(one.counters.refused_keys.value() > 0);
}

#[tokio::test]
async fn frames_arrive_whole_in_order_and_with_their_certified_sender() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    for n in 0..1000_u32 {
        let mut body = n.to_be_bytes().to_vec();
        body.resize(4 + (n as usize * 37) % 5000, n as u8);
        one.peers.send(NodeId(2), Lane::Consensus, Bytes::from(body));
    }
    let received = within("all frames", two.events.wait_frames(1000)).await;
    for (n, (from, lane, body)) in received.iter().enumerate() {
        assert_eq!((*from, *lane), (NodeId(1), Lane::Consensus));
        assert_eq!(body.len(), 4 + (n * 37) % 5000);
        assert_eq!(body[..4], (n as u32).to_be_bytes());
    }
    let large = Bytes::from(vec![5; frame::BODY_BYTES_MAX]);
    one.peers.send(NodeId(2), Lane::Bulk, large.clone());
    one.peers.send(NodeId(2), Lane::Bulk, Bytes::from(vec![5; frame::BODY_BYTES_MAX + 1]));
    let received = within("a large frame", two.events.wait_frames(1001)).await;
    assert!(received[1000].2 == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_both_ways_makes_progress_to_its_end() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    let report = flood(&one, &two, flood_time(), 4000).await;
    println!("flood: {report}");
    assert_eq!(one.counters.links_down.value() + two.counters.links_down.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_in_the_middle_of_a_flood_do_no_harm() {
    let cluster = Cluster::new();
    let settings = Settings { rekey_bytes: 1 << 20, ..Settings::default() };
    let (one, two) = cluster.pair(settings).await;
    let report = flood(&one, &two, flood_time(), 4000).await;
    println!("flood with a key exchange per MiB: {report}");
    assert_eq!(one.counters.links_down.value() + two.counters.links_down.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_blocks_nobody_else() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    let mut stuck = cluster.stuck_peer(&one, 3).await;
    within("the links to it", one.events.wait_ups(NodeId(3), 2)).await;
    stuck.freeze();
    let started = Instant::now();
    let body = Bytes::from(vec![1; 10_000]);
    let mut sent = 0;
    while one.counters.frames_dropped_full.value() == 0 {
        one.peers.send(NodeId(3), Lane::Consensus, body.clone());
        one.peers.send(NodeId(2), Lane::Consensus, Bytes::from_static(b"beat"));
        sent += 1;
        tokio::task::yield_now().await;
        assert!(started.elapsed() < LONG, "the queue to the stuck peer has no bound");
    }
    within("the other peer's frames", two.events.wait_frames(sent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_peer_takes_nothing_is_cut() {
    let cluster = Cluster::new();
    let send_timeout = Duration::from_millis(300);
    let settings = Settings { send_timeout, ..Settings::default() };
    let (one, _two) = cluster.pair(settings).await;
    let mut stuck = cluster.stuck_peer(&one, 3).await;
    within("the links to it", one.events.wait_ups(NodeId(3), 2)).await;
    stuck.freeze();
    let started = Instant::now();
    let is_cut = |(peer, down): &(NodeId, LinkDown)| {
        *peer == NodeId(3) && down.error.contains("took nothing of what was sent for 300ms")
    };
    while !one.events.downs().iter().any(is_cut) {
        one.peers.send(NodeId(3), Lane::Consensus, Bytes::from(vec![1; 10_000]));
        tokio::task::yield_now().await;
        assert!(started.elapsed() < LONG, "{:?}", one.events.downs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_is_known_dead_at_once() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    assert!(one.events.downs().is_empty());
    let died = Instant::now();
    two.kill();
    let down = within("the news", one.events.wait_refused(NodeId(2))).await;
    println!("known dead after {:?}: {}", died.elapsed(), down.error);
    assert!(died.elapsed() < Duration::from_millis(500), "{:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_come_back_after_a_restart() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    let address = two.address;
    two.kill();
    within("the loss", one.events.wait_refused(NodeId(2))).await;
    let again = cluster.node_at(2, &address.to_string(), Settings::default()).await;
    again.know(&[&one]);
    within("its link", again.events.wait_up(NodeId(1))).await;
    within("our link", one.events.wait_ups(NodeId(2), 4)).await;
    one.peers.send(NodeId(2), Lane::Consensus, Bytes::from_static(b"welcome back"));
    let received = within("a frame", again.events.wait_frames(1)).await;
    assert_eq!(&received[0].2[..], b"welcome back");
}

#[tokio::test]
async fn what_is_no_frame_cuts_the_link_and_nothing_else() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair(Settings::default()).await;
    let hello = |node: u64, protocol, cluster: &str| {
        let software = "test".to_string();
        let cluster = cluster.to_string();
        let hello = Hello { protocol, cluster, node, software };
        let mut out = bytes::BytesMut::new();
        frame::put_frame(&mut out, FrameKind::Hello, &frame::encode_hello(&hello));
        out.to_vec()
    };
    let good = hello(1, (1, 1), "");
    let after = |bytes: &[u8]| [&good[..], bytes].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("oversized", after(&[255, 255, 255, 255, 1, 2]), "the limit is"),
        ("undersized", after(&[0, 0, 0, 1, 1, 2]), "too few"),
        ("version", after(&[0, 0, 0, 2, 9, 2]), "format version 9"),
        ("kind", after(&[0, 0, 0, 2, 1, 77]), "unknown kind 77"),
        ("second hello", after(&good), "no place"),
        ("no hello", vec![0, 0, 0, 3, 1, 2, 0], "no place"),
        ("broken hello", vec![0, 0, 0, 3, 1, 1, 0], "hello does not decode"),
        ("another id", hello(2, (1, 1), ""), "claims to be n2"),
        ("another cluster", hello(1, (1, 1), "feed"), "belongs to the cluster feed"),
        ("another protocol", hello(1, (7, 9), ""), "protocol versions 7 to 9"),
        ("noise", b"\x00\x00\x01GET / HTTP/1.1\r\n".to_vec(), "format version"),
    ];
    for (n, (name, bytes, reason)) in cases.into_iter().enumerate() {
        let connection = two.dial_as(&cluster.peer(1)).await.unwrap();
        let mut channel = connection.subsystem("paxos-consensus").await.unwrap();
        channel.send(Bytes::from(bytes)).await.unwrap();
        let told = within(name, async {
            loop {
                if let ChannelEvent::Closed(reason) = channel.next().await {
                    return reason;
                }
            }
        })
        .await;
        assert!(told.contains(reason), "{name}: {told}");
        assert_eq!(two.counters.peer_protocol_errors.value(), n as u64 + 1, "{name}");
    }
    assert!(two.events.frames().is_empty(), "a bad link delivered something");
    one.peers.send(NodeId(2), Lane::Consensus, Bytes::from_static(b"still here"));
    within("a frame on the good link", two.events.wait_frames(1)).await;
    assert_eq!(one.counters.links_down.value(), 0);
}

#[tokio::test]
async fn people_open_no_links_and_nodes_run_no_commands() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    assert!(connection.subsystem("paxos-consensus").await.is_err());
    assert!(connection.subsystem("paxos-bulk").await.is_err());
    let peer = node.dial_as(&cluster.peer(2)).await.unwrap();
    assert!(peer.exec("both out err 0").await.is_err());
    assert!(peer.subsystem("paxos-rpc").await.is_err());
    assert_eq!(node.counters.refused_requests.value(), 4);
    assert!(node.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_under_another_id_than_dialled_is_not_sent_to() {
    let cluster = Cluster::new();
    let one = cluster.node(1, Settings::default()).await;
    let two = cluster.node(2, Settings::default()).await;
    // The name is node2's, but we believe that its id is 3.
    one.peers.set_members(vec![two.as_peer_with_id(3)]);
    within("a failed dial", async {
        while one.counters.dials_failed.value() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(one.counters.links_up.value(), 0);
}

#[tokio::test]
async fn a_session_over_a_local_socket_looks_the_same() {
    let source = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let principal = paxos_ssh::transport::identity::Principal::Local;
    let request = ExecRequest::Exec(b"cat".to_vec());
    let (session, mut far) = ExecSession::detached(principal, source, request);
    tokio::spawn(answer(session, Arc::default()));
    far.push(b"hello").await;
    far.end();
    let mut out = Vec::new();
    while let Some(event) = far.next().await {
        out.push(event);
    }
    use paxos_ssh::transport::session::OutputEvent::{Exit, Stdout};
    assert_eq!(out, [Stdout(Bytes::from_static(b"hello")), Exit(0)]);
}

// The stock client.

#[tokio::test]
async fn the_stock_client_runs_commands_and_keeps_every_byte() {
    let Some(stock) = Stock::new().await else { return };
    let got = stock.run(&["both", "out", "err", "5"], b"").await;
    assert_eq!(got, (b"out".to_vec(), b"err".to_vec(), Some(5)));
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    let (out, err, exit) = stock.run(&["cat"], &input).await;
    assert_eq!((exit, String::from_utf8_lossy(&err)), (Some(0), "".into()));
    assert!(out == input, "{} bytes of {} came back", out.len(), input.len());
}

#[tokio::test]
async fn the_stock_client_is_held_back_without_losing_a_byte() {
    let Some(stock) = Stock::new().await else { return };
    let go = stock.node.go.clone();
    let stuck = stock.node.stuck.clone();
    let input = vec![9; 32 << 20];
    let letting_go = tokio::spawn(async move {
        while !stuck.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        // Long enough for a client that nobody holds back to send all of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        go.notify_waiters();
    });
    let (out, err, exit) = stock.run(&["slow"], &input).await;
    letting_go.await.unwrap();
    assert_eq!((exit, String::from_utf8_lossy(&err)), (Some(0), "".into()));
    assert_eq!(String::from_utf8(out).unwrap(), format!("{}", input.len()));
    assert_eq!(stock.node.counters.stdin_overflows.value(), 0);
}

#[tokio::test]
async fn the_stock_client_without_a_command_gets_an_answer() {
    let Some(stock) = Stock::new().await else { return };
    for tty in ["-T", "-tt"] {
        let (out, _, exit) = stock.run_with(&[tty], &[], b"").await;
        assert_eq!((&out[..], exit), (&b"shell"[..], Some(64)), "{tty}");
    }
    stock.node.wait_seen("pty").await;
}

#[tokio::test]
async fn the_stock_client_multiplexes() {
    let Some(stock) = Stock::new().await else { return };
    let control = stock.directory.path().join("control");
    let control = format!("ControlPath={}", control.display());
    let share = ["-o", "ControlMaster=auto", "-o", &control, "-o", "ControlPersist=20"];
    for n in 0..5 {
        let n = n.to_string();
        let got = stock.run_with(&share, &["both", "out", "err", &n], b"").await;
        assert_eq!((&got.0[..], got.2), (&b"out"[..], n.parse().ok()));
    }
    let input = vec![4; 1_000_000];
    let (first, second) = tokio::join!(
        stock.run_with(&share, &["cat"], &input),
        stock.run_with(&share, &["cat"], &input)
    );
    assert!(first.0 == input && second.0 == input);
    assert_eq!(stock.node.counters.authenticated.value(), 1, "the connection was not shared");
    stock.run_with(&["-O", "exit", "-o", &control], &[], b"").await;
}

#[tokio::test]
async fn the_stock_client_is_refused_what_is_not_offered() {
    let Some(stock) = Stock::new().await else { return };
    let sftp = stock.run_with(&["-s"], &["sftp"], b"").await;
    assert!(sftp.2 != Some(0), "sftp was let in");
    let forward = stock.run_with(&["-W", "127.0.0.1:22"], &[], b"").await;
    assert!(forward.2 != Some(0), "forwarding was let in");
    let listen = ["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"];
    let listened = stock.run_with(&listen, &["both", "out", "err", "0"], b"").await;
    assert!(listened.2 != Some(0) && listened.0.is_empty(), "listening was let in");
    let env = stock.run_with(&["-o", "SetEnv=SECRET=1"], &["both", "out", "err", "3"], b"").await;
    assert_eq!(env.2, Some(3), "a refused variable must not stop the command");
    let agent = stock.run_with(&["-A", "-X"], &["both", "out", "err", "4"], b"").await;
    assert_eq!(agent.2, Some(4), "refused agent forwarding must not stop the command");
    assert!(stock.node.counters.refused_requests.value() >= 4);
}

#[tokio::test]
async fn the_stock_client_with_an_unknown_key_is_refused() {
    let Some(stock) = Stock::new().await else { return };
    stock.write_identity(&new_key(), None);
    let (out, err, exit) = stock.run(&["both", "out", "err", "0"], b"").await;
    let err = String::from_utf8_lossy(&err);
    assert_eq!((out.len(), exit), (0, Some(255)));
    assert!(err.contains("Permission denied (publickey)"), "{err}");
    assert_eq!(stock.node.counters.refused_keys.value(), 1);
}
