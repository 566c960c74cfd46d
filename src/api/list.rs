//! Lists of keys: page by page out of one unchanging view, so that a list of any length takes
//! little memory and shows the store as it was at one revision.

use super::access::Access;
use super::backend::{Backend, Reads};
use super::execute::Executor;
use super::send;
use crate::transport::session::{Gone, Output};
use crate::wire::answer::{Page, Record, write_record, write_row};
use crate::wire::failure::Failure;
use crate::wire::request::{Format, Verb};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// Keys taken from the view at a time: some tens of kilobytes with values of usual size.
const PAGE_KEYS: usize = 256;

/// Bytes of keys and values in one answer that is not streamed; the list says that there is more.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Bytes of rendered output that are sent at once.
const OUTPUT_BYTES: usize = 64 << 10;

/// A list being read.
pub(super) struct Listing<'a, V> {
    view: Arc<V>,
    access: &'a Access,
    prefix: Bytes,
    after: Option<Bytes>,
    /// How many may still be shown; none if there is no limit.
    left: Option<u64>,
    keys_only: bool,
    ended: bool,
}

impl<V: Reads> Listing<'_, V> {
    /// The next keys; none at the end or at the limit.
    fn next_page(&mut self) -> Option<Vec<Record>> {
        let left = self.left.map_or(PAGE_KEYS, |left| left.min(PAGE_KEYS as u64) as usize);
        if self.ended || left == 0 {
            return None;
        }
        let mut page = self.view.list(&self.prefix, self.after.as_deref(), left);
        self.ended = page.len() < left;
        self.after = page.last().map(|record| record.key.clone()).or(self.after.take());
        // The prefix was asked for already; nothing is shown on the strength of that alone.
        page.retain(|record| self.access.may_read(&record.key));
        if self.keys_only {
            page.iter_mut().for_each(|record| record.value = None);
        }
        self.left = self.left.map(|left| left - page.len() as u64);
        Some(page)
    }

    /// Whether keys were left out because of the limit.
    fn has_more(&self) -> bool {
        !self.ended && !self.view.list(&self.prefix, self.after.as_deref(), 1).is_empty()
    }

    /// Everything in one answer, as far as it fits.
    pub(super) fn collect(mut self) -> Page {
        let mut answer = Page { revision: self.view.revision(), ..Page::default() };
        let mut bytes = 0;
        while let Some(page) = self.next_page() {
            for record in page {
                bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
                if bytes > ANSWER_BYTES_MAX && !answer.items.is_empty() {
                    return Page { more: true, ..answer };
                }
                answer.items.push(record);
            }
        }
        Page { more: self.has_more(), ..answer }
    }

    /// Everything to standard output, as fast as the client takes it.
    pub(super) async fn stream(mut self, format: Format, output: &Output) -> Result<(), Gone> {
        let mut out = Vec::new();
        if format == Format::Json {
            let revision = self.view.revision();
            out.extend_from_slice(format!("{{\"ok\":true,\"revision\":{revision},").as_bytes());
            out.extend_from_slice(b"\"items\":[");
        }
        let mut first = true;
        while let Some(page) = self.next_page() {
            for record in page {
                if format == Format::Table {
                    write_row(&mut out, &record);
                } else {
                    if !first {
                        out.push(b',');
                    }
                    write_record(&mut out, &record);
                }
                first = false;
                if out.len() >= OUTPUT_BYTES {
                    send(output, std::mem::take(&mut out).into()).await?;
                }
            }
        }
        if format == Format::Json {
            let end = format!("],\"more\":{}}}\n", self.has_more());
            out.extend_from_slice(end.as_bytes());
        }
        send(output, out.into()).await
    }
}

/// Makes a list ready: rights, and the read that it starts from.
pub(super) async fn open<'a, B: Backend>(
    executor: &Executor<B>,
    access: &'a Access,
    verb: Verb,
    deadline: Instant,
) -> Result<Listing<'a, B::View>, Failure> {
    let Verb::List { prefix, after, limit, keys_only, consistency } = verb else {
        unreachable!("only lists are listed");
    };
    access.list(&prefix)?;
    let view = executor.view(consistency, deadline).await?;
    Ok(Listing { view, access, prefix, after, left: limit, keys_only, ended: false })
}
