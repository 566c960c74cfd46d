//! The listening end of a link between nodes: greets, checks, and hands frames on.
//!
//! Whatever does not fit ends the link with a reason and has no other effect: the sender's next
//! dial starts afresh, and what was lost with the link is what messages may lose anyway.

use super::connection::GuestContext;
use super::{Lane, LocalNode};
use crate::paxos::ballot::NodeId;
use crate::wire::frame::{self, FrameDecoder, FrameKind, Hello};
use bytes::{Bytes, BytesMut};

/// Longest piece of what somebody sent that goes into our log.
const LOGGED_CHARS_MAX: usize = 64;

/// Cuts what somebody sent to what a log line stands.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).flat_map(char::escape_default).collect()
}

/// One link, from the node `from`.
pub(super) struct Link {
    pub(super) from: NodeId,
    pub(super) lane: Lane,
    decoder: FrameDecoder,
    greeted: bool,
}

impl Link {
    pub(super) fn new(from: NodeId, lane: Lane) -> Link {
        Link { from, lane, decoder: FrameDecoder::new(), greeted: false }
    }

    /// Takes bytes of the stream. Answers our greeting once theirs has come, or why the link must
    /// end.
    pub(super) fn take(
        &mut self,
        mut data: &[u8],
        context: &GuestContext,
    ) -> Result<Option<Bytes>, String> {
        let mut greeting = None;
        context.counters.bytes_received.add(data.len() as u64);
        while let Some(frame) = self.decoder.next(&mut data).map_err(|e| e.to_string())? {
            match frame.kind {
                FrameKind::Message if self.greeted => {
                    context.counters.frames_received.increment();
                    context.peers.frame(self.from, self.lane, frame.body);
                }
                FrameKind::Hello if !self.greeted => {
                    let theirs = frame::decode_hello(&frame.body).map_err(|e| e.to_string())?;
                    let ours = our_hello(&context.local);
                    check_hello(&ours, &theirs, self.from)?;
                    let mut out = BytesMut::new();
                    frame::put_frame(&mut out, FrameKind::Hello, &frame::encode_hello(&ours));
                    greeting = Some(out.freeze());
                    self.greeted = true;
                    context.peers.greeted(self.from, self.lane);
                }
                kind => return Err(format!("a {kind:?} frame has no place here")),
            }
        }
        Ok(greeting)
    }
}

/// What this node says first on a link.
pub(super) fn our_hello(local: &LocalNode) -> Hello {
    Hello {
        protocol: frame::PROTOCOL_VERSIONS,
        cluster: local.cluster_id.clone(),
        node: local.id.0,
        software: concat!("paxos ", env!("CARGO_PKG_VERSION")).to_string(),
    }
}

/// Whether a peer, whose certificate says that it is `certified`, may go on after this greeting.
pub(super) fn check_hello(ours: &Hello, theirs: &Hello, certified: NodeId) -> Result<(), String> {
    if theirs.node != certified.0 {
        let claimed = NodeId(theirs.node);
        return Err(format!("it claims to be {claimed}, but its certificate says {certified}"));
    }
    if !ours.cluster.is_empty() && !theirs.cluster.is_empty() && ours.cluster != theirs.cluster {
        let (here, there) = (&ours.cluster, shown(&theirs.cluster));
        return Err(format!("it belongs to the cluster {there}, not to {here}"));
    }
    if ours.common_protocol(theirs).is_none() {
        let (a, b) = (ours.protocol, theirs.protocol);
        return Err(format!(
            "it speaks the protocol versions {} to {}, and this node {} to {}; upgrade the older",
            b.0, b.1, a.0, a.1
        ));
    }
    Ok(())
}
