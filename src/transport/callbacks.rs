//! russh's callbacks of a connection that we dialled: judge the host, and sort what arrives by
//! channel.
//!
//! They are called from the connection's only loop, so none of them waits.

use super::channel::{ChannelEvent, Inbox};
use super::client::HostCheck;
use super::identity;
use super::live::DialledHost;
use super::refusal::Refusal;
use bytes::Bytes;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, ChannelOpenFailure};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// What the callbacks and the connection share.
#[derive(Default)]
pub(super) struct Shared {
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    /// What the host was believed for.
    pub(super) host: OnceLock<DialledHost>,
    /// Why the host was not believed.
    distrust: Mutex<Option<String>>,
    /// Why the connection ended; set before `over`.
    end: Mutex<Option<String>>,
    pub(super) over: CancellationToken,
}

impl Shared {
    fn inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.inboxes.lock().expect("no holder of this lock panics").get(&id).cloned()
    }

    pub(super) fn register(&self, id: ChannelId) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = self.inboxes.lock().expect("no holder of this lock panics");
        inboxes.insert(id, inbox.clone());
        drop(inboxes);
        if self.over.is_cancelled() {
            inbox.close(&self.reason());
        }
        inbox
    }

    /// Why the host was not believed, if that is what happened.
    pub(super) fn distrust(&self) -> Option<String> {
        self.distrust.lock().expect("no holder of this lock panics").take()
    }

    fn forget(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.inboxes.lock().expect("no holder of this lock panics").remove(&id)
    }

    pub(super) fn reason(&self) -> String {
        let end = self.end.lock().expect("no holder of this lock panics");
        end.clone().unwrap_or_else(|| "it was closed".to_string())
    }

    fn finish(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.end.lock().expect("no holder of this lock panics").get_or_insert(reason);
        }
        self.over.cancel();
        let reason = self.reason();
        let mut inboxes = self.inboxes.lock().expect("no holder of this lock panics");
        for (_, inbox) in inboxes.drain() {
            inbox.close(&reason);
        }
    }
}

/// russh's callbacks of one connection that we dialled. None of them waits.
pub(super) struct Callbacks {
    pub(super) shared: Arc<Shared>,
    pub(super) expected: String,
    pub(super) check: HostCheck,
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.shared.finish(None);
    }
}

impl Callbacks {
    fn judge(&self, proof: &PublicKeyOrCertificate) -> Result<(), String> {
        let PublicKeyOrCertificate::Certificate(certificate) = proof else {
            return Err("it shows a bare key where a host certificate is needed".to_string());
        };
        let now = SystemTime::now();
        let judged = match &self.check {
            HostCheck::Trust(trust) => trust.load().accept_host(certificate, &self.expected, now),
            HostCheck::Authorities { believed, revoked } => {
                if revoked.iter().any(|key| key.key_data() == certificate.public_key()) {
                    return Err(Refusal::Revoked("its host key".to_owned()).to_string());
                }
                identity::accept_host(certificate, believed, &self.expected, now)
            }
        };
        judged.map_err(|refusal| refusal.to_string())?;
        let (certificate, expected) = (certificate.clone(), self.expected.clone());
        // It is the same one when the keys of the connection are drawn anew.
        let _known = self.shared.host.set(DialledHost { certificate, expected, at: now });
        Ok(())
    }

    fn arrived(
        &self,
        id: ChannelId,
        event: ChannelEvent,
        bytes: usize,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(inbox) = self.shared.inbox(id) else { return Ok(()) };
        if inbox.push(event, bytes) {
            return Ok(());
        }
        self.shared.forget(id);
        session.close(id)
    }
}

impl Handler for Callbacks {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        proof: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let Err(reason) = self.judge(proof) else { return Ok(true) };
        *self.shared.distrust.lock().expect("no holder of this lock panics") = Some(reason);
        Ok(false)
    }

    async fn channel_success(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(inbox) = self.shared.inbox(id) {
            inbox.answer(true);
        }
        Ok(())
    }

    async fn channel_failure(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(inbox) = self.shared.inbox(id) {
            inbox.answer(false);
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::Stdout(Bytes::copy_from_slice(data));
        self.arrived(id, event, data.len(), session)
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        _kind: u32,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::Stderr(Bytes::copy_from_slice(data));
        self.arrived(id, event, data.len(), session)
    }

    async fn exit_status(
        &mut self,
        id: ChannelId,
        status: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.arrived(id, ChannelEvent::Exit(status), 0, session)
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(inbox) = self.shared.forget(id) {
            inbox.close("the channel ended");
        }
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => info.message,
            DisconnectReason::Error(error) => error.to_string(),
        };
        self.shared.finish(Some(text));
        Ok(())
    }

    // What a node never opens towards a client.

    async fn server_channel_open_session(
        &mut self,
        _channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }
}
