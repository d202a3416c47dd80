use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    frame_of(1, kind, flags, payload)
}

fn frame_of(stream: u32, kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), &vec![0; payload]].concat()
}

fn settings() -> Vec<u8> {
    frame_of(0, 4, 0, 6)
}

fn watched() -> (DuplexStream, Frames<DuplexStream>, Arc<PeerConduct>) {
    let (peer, io) = tokio::io::duplex(1 << 20);
    let conduct = Arc::new(PeerConduct::default());
    (peer, Frames::new(io, 5 * SECOND / 2, 100, Arc::clone(&conduct)), conduct)
}

/// Sends the parts a second apart, and tells how many of them were read before the connection failed, and why, if it
/// did.
async fn send(parts: &[&[u8]]) -> (usize, Option<Cut>) {
    let (mut peer, mut frames, conduct) = watched();
    let mut preface = [0; PREFACE.len()];
    frames.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, PREFACE);
    let sending = async {
        for part in parts {
            peer.write_all(part).await.unwrap();
            time::sleep(SECOND).await;
        }
        time::sleep(10 * SECOND).await;
    };
    let reading = async {
        let mut reads = 0;
        let mut buffer = vec![0; 1 << 16];
        while frames.read(&mut buffer).await.is_ok() {
            reads += 1;
        }
        reads
    };
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        reads = &mut reading => (reads, conduct.why_cut()),
        () = sending => (parts.len(), None),
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_finishes_what_it_begins_may_be_silent_for_ever() {
    let headers = frame(HEADERS, 0, 5);
    let rest = frame(CONTINUATION, END_HEADERS, 5);
    let (half, other) = headers.split_at(11);
    let settings = settings();
    assert_eq!(send(&[&settings]).await, (1, None));
    assert_eq!(send(&[&settings, &headers, &rest, &frame(0, 1, 100)]).await, (4, None));
    assert_eq!(send(&[&settings, half, &[other, &rest].concat()]).await, (3, None));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_is_cut() {
    let slow = Some(Cut::Slow);
    let settings = settings();
    let drip: Vec<&[u8]> = settings.chunks(1).collect();
    assert_eq!(send(&drip).await, (3, slow), "two and a half seconds for the settings");
    assert_eq!(send(&[]).await, (0, slow));
    let headers = frame(HEADERS, 0, 1);
    let more = frame(CONTINUATION, 0, 1);
    assert_eq!(send(&[&settings, &headers, &more, &more, &more]).await, (4, slow), "as many for a block of headers");
    let data = frame(0, 0, 100);
    let drip: Vec<&[u8]> = std::iter::once(&*settings).chain(data.chunks(1)).collect();
    assert_eq!(send(&drip).await, (4, slow), "and for a frame");
    let next = [&data[..], &data[..7]].concat();
    assert!(send(&[&settings, &data[..3], &[&data[3..], &data[..7]].concat(), &[], &[]]).await.1 == slow);
    assert_eq!(send(&[&settings, &next]).await, (2, slow));
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_not_late_however_late_it_is_read() {
    let (mut peer, mut frames, _conduct) = watched();
    let headers = frame(HEADERS, END_HEADERS, 100);
    let mut buffer = vec![0; 1 << 16];
    peer.write_all(&[&settings(), &headers[..50]].concat()).await.unwrap();
    for expected in [PREFACE.len(), settings().len() + 50] {
        assert_eq!(frames.read(&mut buffer).await.unwrap(), expected);
    }
    peer.write_all(&headers[50..]).await.unwrap();
    time::advance(60 * SECOND).await;
    assert_eq!(frames.read(&mut buffer).await.unwrap(), headers.len() - 50);
}

/// Calls that are given up as soon as they are begun.
fn unseen(from: u32, calls: u32) -> Vec<u8> {
    let call = |stream| [frame_of(stream, HEADERS, END_HEADERS, 1), frame_of(stream, RST_STREAM, 0, 4)];
    (from..from + calls).flat_map(|number| call(2 * number + 1)).flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_give_up_all_its_calls_unseen_once_a_second_and_no_more() {
    let settings = settings();
    let writes = |counts: &[u32]| {
        let starts = counts.iter().scan(0, |from, calls| Some(std::mem::replace(from, *from + calls)));
        starts.zip(counts).map(|(from, calls)| unseen(from, *calls)).collect::<Vec<_>>()
    };
    let sent = async |counts: &[u32]| {
        let writes = writes(counts);
        send(&std::iter::once(&*settings).chain(writes.iter().map(Vec::as_slice)).collect::<Vec<_>>()).await.1
    };
    assert_eq!(sent(&[100; 20]).await, None);
    assert_eq!(sent(&[400, 100, 100]).await, None);
    assert_eq!(sent(&[500]).await, Some(Cut::Resets));
    assert_eq!(sent(&[200; 20]).await, Some(Cut::Resets));
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_seen_before_they_were_given_up_are_judged_elsewhere() {
    let begun: Vec<u8> = (0..100).flat_map(|number| frame_of(2 * number + 1, HEADERS, END_HEADERS, 1)).collect();
    let given_up: Vec<u8> = (0..100).flat_map(|number| frame_of(2 * number + 1, RST_STREAM, 0, 4)).collect();
    let parts: Vec<&[u8]> = std::iter::once(&*begun).chain([&*given_up; 20]).collect();
    assert_eq!(send(&[&[&*settings()], &parts[..]].concat()).await.1, None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_ends_with_goaway_between_frames_only() {
    for is_between in [true, false] {
        let (mut peer, mut frames, conduct) = watched();
        frames.write_all(b"frame").await.unwrap();
        if is_between {
            frames.flush().await.unwrap();
        }
        frames.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        let cutting = async {
            tokio::task::yield_now().await;
            (0..500).for_each(|_| conduct.ended(true));
        };
        let mut buffer = [0; 64];
        let (read, ()) = tokio::join!(frames.read(&mut buffer), cutting);
        assert_eq!(read.unwrap_err().to_string(), "resets");
        assert_eq!(frames.write_all(b"frame").await.unwrap_err().to_string(), "resets");
        drop(frames);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        let goaway = goaway(0, b"too many calls were given up");
        let expected = if is_between { [b"frame", &goaway[..]].concat() } else { b"frame".to_vec() };
        assert_eq!(received, expected);
    }
}

proptest! {
    #[test]
    fn any_frames_in_any_pieces_are_finished_at_their_end(
        payloads in prop::collection::vec((0..300usize, any::<bool>()), 0..6),
        size in 1..50usize,
    ) {
        let mut unit = Unit::new();
        let mut bytes = settings();
        for (payload, is_data) in payloads {
            bytes.extend(if is_data { frame(0, 0, payload) } else { frame(HEADERS, END_HEADERS, payload) });
        }
        for piece in bytes.chunks(size) {
            unit.take(piece);
        }
        prop_assert!(unit.is_finished());
        unit.take(&bytes[..1]);
        prop_assert!(!unit.is_finished());
    }
}
