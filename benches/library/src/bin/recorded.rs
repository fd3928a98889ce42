//! The server of the library, with every launch recorded as `nsexec trace` does. The record is not read.

use std::error::Error;

use nsexec_audit::record::Recorder;
use nsexec_audit::record::shared::SharedSink;
use nsexec_bench_library::serve;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "serve-unrecorded") {
        // So that this program contains an unrecorded launch too: see benches/samecode.py.
        return serve(words.get(1..).unwrap_or_default(), |launcher| launcher.spawn());
    }
    serve(words.get(1..).unwrap_or_default(), |launcher| {
        let (sink, _reader) = SharedSink::new().expect("memory for the record");
        launcher.spawn_through(|sys| Recorder::new(sys, sink))
    })
}
