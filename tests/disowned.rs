//! What becomes of open connections when trust changes: those that it is taken from end at once,
//! and all others go on.

mod transport_fixture;

use bytes::Bytes;
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::transport::Lane;
use paxos_ssh::transport::bundle::{AuthorityRole, Revocation};
use paxos_ssh::transport::client::{ChannelEvent, Connection, DialError, ExecChannel};
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::settings::Settings;
use std::time::{Duration, Instant, SystemTime};
use transport_fixture::*;

/// The aim; what is seen is a few milliseconds.
const CUT_MAX: Duration = Duration::from_secs(1);

/// Long enough to see that nothing happens where something would happen in milliseconds.
const NOTHING_HAPPENS: Duration = Duration::from_millis(300);

/// A command that runs until its input ends, as a batch does.
async fn running(connection: &Connection) -> ExecChannel {
    let mut channel = connection.exec("cat").await.unwrap();
    goes_on(&mut channel).await;
    channel
}

async fn goes_on(channel: &mut ExecChannel) {
    channel.send(Bytes::from_static(b"line\n")).await.unwrap();
    let echo = within("an echo", channel.next()).await;
    assert_eq!(echo, ChannelEvent::Stdout(Bytes::from_static(b"line\n")));
}

/// Demands that the channel closes in time, without a last word of ours.
async fn is_cut(channel: &mut ExecChannel, since: Instant) {
    let event = within("the end of the connection", channel.next()).await;
    assert!(matches!(event, ChannelEvent::Closed(_)), "{event:?}");
    assert!(since.elapsed() < CUT_MAX, "it took {:?}", since.elapsed());
}

#[tokio::test]
async fn a_revoked_operator_loses_the_connection_and_others_keep_theirs() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let (alice, bob) = (cluster.person("alice"), cluster.person("bob"));
    let (alices, bobs) = (node.dial_as(&alice).await.unwrap(), node.dial_as(&bob).await.unwrap());
    let (mut alices_batch, mut bobs_batch) = (running(&alices).await, running(&bobs).await);
    let mut alices_second = running(&alices).await;

    let begun = Instant::now();
    cluster.revoke(&[Revocation::KeyId("alice@test/7".to_owned())]);
    is_cut(&mut alices_batch, begun).await;
    is_cut(&mut alices_second, begun).await;
    assert!(matches!(node.dial_as(&alice).await, Err(DialError::Denied { .. })));
    goes_on(&mut bobs_batch).await;
    assert!(node.dial_as(&bob).await.is_ok());
    assert_eq!(node.counters.disowned.value(), 1, "one connection, of one person");
}

#[tokio::test]
async fn a_session_that_does_not_read_is_cut_as_well() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let connection = node.dial_as(&cluster.person("alice")).await.unwrap();
    let mut channel = connection.exec("wait").await.unwrap();
    node.wait_seen("alice Exec(\"wait\")").await;
    cluster.revoke(&[Revocation::KeyId("alice@test/7".to_owned())]);
    is_cut(&mut channel, Instant::now()).await;
    // Whoever answers it is told, too.
    node.wait_seen("gone").await;
}

#[tokio::test]
async fn a_change_that_takes_nothing_away_ends_no_connection() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let carol = cluster.listed_key("carol");
    let (alices, carols) = (
        node.dial_as(&cluster.person("alice")).await.unwrap(),
        node.dial_as(&carol).await.unwrap(),
    );
    let (mut alices_batch, mut carols_batch) = (running(&alices).await, running(&carols).await);
    for _ in 0..3 {
        cluster.revoke(&[Revocation::Serial(AuthorityRole::Peer, 7)]);
    }
    tokio::time::sleep(NOTHING_HAPPENS).await;
    goes_on(&mut alices_batch).await;
    goes_on(&mut carols_batch).await;
    assert_eq!(node.counters.disowned.value(), 0);
}

/// A certificate is for logging in. Whoever is in when it runs out stays, whatever else changes.
#[tokio::test]
async fn time_that_passes_ends_no_connection() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let dave = cluster.person_for(3, "dave");
    let over = SystemTime::now() + Duration::from_secs(3);
    let connection = node.dial_as(&dave).await.unwrap();
    let mut batch = running(&connection).await;
    let rest = over.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(rest + Duration::from_secs(1)).await;
    cluster.revoke(&[Revocation::KeyId("nobody".to_owned())]);
    assert!(matches!(node.dial_as(&dave).await, Err(DialError::Denied { .. })), "it ran out");
    goes_on(&mut batch).await;
    let begun = Instant::now();
    cluster.revoke(&[Revocation::KeyId("dave@test/7".to_owned())]);
    is_cut(&mut batch, begun).await;
}

#[tokio::test]
async fn an_authority_that_is_believed_no_more_takes_its_own_along() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let carol = cluster.listed_key("carol");
    let (alices, carols) = (
        node.dial_as(&cluster.person("alice")).await.unwrap(),
        node.dial_as(&carol).await.unwrap(),
    );
    let (mut alices_batch, mut carols_batch) = (running(&alices).await, running(&carols).await);
    let begun = Instant::now();
    cluster.believe(
        |bundle| bundle.authorities.retain(|known| known.role != AuthorityRole::Operator),
        |_| Rights::all(),
    );
    is_cut(&mut alices_batch, begun).await;
    goes_on(&mut carols_batch).await;
}

#[tokio::test]
async fn a_plain_key_with_other_rights_has_to_log_in_again() {
    let cluster = Cluster::new();
    let node = cluster.node(1, Settings::default()).await;
    let (carol, dan) = (cluster.listed_key("carol"), cluster.listed_key("dan"));
    let (carols, dans) = (node.dial_as(&carol).await.unwrap(), node.dial_as(&dan).await.unwrap());
    let (mut carols_batch, mut dans_batch) = (running(&carols).await, running(&dans).await);
    let begun = Instant::now();
    let rights = |name: &str| match name {
        "carol" => "read".parse().unwrap(),
        _ => Rights::all(),
    };
    cluster.believe(|_| (), rights);
    is_cut(&mut carols_batch, begun).await;
    assert!(node.dial_as(&carol).await.is_ok(), "with what it may do now");
    goes_on(&mut dans_batch).await;
}

#[tokio::test]
async fn links_with_a_revoked_node_end_both_ways_and_the_others_stay() {
    let cluster = Cluster::new();
    let print = cluster.prepare(2);
    let settings = Settings::default();
    let (one, two) = cluster.pair(settings.clone()).await;
    let three = cluster.node(3, settings).await;
    one.know(&[&two, &three]);
    three.know(&[&one]);
    within("links", one.events.wait_ups(NodeId(3), 2)).await;
    within("links", three.events.wait_ups(NodeId(1), 2)).await;

    cluster.revoke(&[Revocation::Fingerprint(print)]);
    let begun = Instant::now();
    // Those that it dialled, and those that were dialled to it.
    within("links to end", one.events.wait_downs(NodeId(2), 2)).await;
    within("links to end", two.events.wait_downs(NodeId(1), 2)).await;
    assert!(begun.elapsed() < CUT_MAX, "it took {:?}", begun.elapsed());
    // Two that one dialled, and two that it took in.
    assert!(one.counters.disowned.value() >= 4, "{}", one.counters.disowned.value());
    let heard = one.events.frames().len();
    two.peers.send(NodeId(1), Lane::Consensus, Bytes::from_static(b"lost"));
    three.peers.send(NodeId(1), Lane::Consensus, Bytes::from_static(b"heard"));
    let frames = within("a frame", one.events.wait_frames(heard + 1)).await;
    assert_eq!(frames[heard].0, NodeId(3));
    for (node, peer) in [(&one, NodeId(3)), (&three, NodeId(1))] {
        assert!(node.events.downs().iter().all(|(id, _)| *id != peer), "{peer} was cut as well");
    }
}
