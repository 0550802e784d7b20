//! What can be loaded, and what is said about everything else.

use sidegate_host::{Component, ComponentService, Host, LoadError};

use crate::support::{HELLO, PROBE, hello, probe, shared};

fn refused(bytes: &[u8]) -> LoadError {
    shared().host.load("refused", bytes).unwrap_err()
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_not_a_component_for_this_host_is_refused_with_what_it_is() {
    let half = &HELLO[..HELLO.len() / 2];
    let mut damaged = HELLO.to_vec();
    damaged[12] ^= 0xff;
    let handler = r#"(instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i))"#;
    let table: [(&str, Vec<u8>, &str, &str); 17] = [
        ("nothing", vec![], "SG0401", "the file is empty"),
        (
            "wat",
            b"  (component)".to_vec(),
            "SG0402",
            "WebAssembly text, not a compiled component",
        ),
        (
            "wat comment",
            b";; hi".to_vec(),
            "SG0402",
            "wasm-tools parse",
        ),
        (
            "text",
            b"#!/bin/sh\n".to_vec(),
            "SG0402",
            "this is text, not a compiled component",
        ),
        (
            "an ELF file",
            b"\x7fELF\x02\x01\x01\0\0".to_vec(),
            "SG0403",
            "7f 45 4c 46 02 01 01 00",
        ),
        ("a module", wat("(module)"), "SG0404", "wasm32-wasip2"),
        (
            "half a magic number",
            b"\0as".to_vec(),
            "SG0405",
            "ends within its header",
        ),
        (
            "half a header",
            b"\0asm\x0d\0".to_vec(),
            "SG0405",
            "ends within its header",
        ),
        (
            "unknown version",
            b"\0asm\x0e\0\x01\0".to_vec(),
            "SG0405",
            "version 0e 00 01 00",
        ),
        ("half a component", half.to_vec(), "SG0405", "offset"),
        ("damage", damaged, "SG0405", "offset"),
        (
            "no exports",
            wat("(component)"),
            "SG0406",
            "it exports nothing",
        ),
        (
            "a command",
            wat(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#),
            "SG0406",
            "it exports wasi:cli/run@0.2.0",
        ),
        (
            "WASI 0.3",
            wat(r#"(component (instance $i) (export "wasi:http/handler@0.3.0" (instance $i)))"#),
            "SG0406",
            "does not export wasi:http/incoming-handler@0.2",
        ),
        (
            "unknown imports",
            wat(&format!(
                r#"(component
                    (import "wasi:io/poll@0.2.99" (instance))
                    (import "wasi:keyvalue/store@0.2.0" (instance))
                    (import "wasi:io/poll@0.3.0" (instance))
                    (import "greet" (func))
                    {handler})"#
            )),
            "SG0407",
            "does not provide: wasi:keyvalue/store@0.2.0, wasi:io/poll@0.3.0, greet",
        ),
        (
            "no function",
            wat(&format!("(component {handler})")),
            "SG0408",
            "handle",
        ),
        (
            "too much memory",
            wat(&format!(
                "(component (core module $m (memory 1000)) (core instance (instantiate $m)) {handler})"
            )),
            "SG0409",
            "memory",
        ),
    ];
    for (name, bytes, code, text) in table {
        let error = refused(&bytes);
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.to_string().contains(text), "{name}: {error}");
    }
}

#[test]
fn a_component_has_its_name_and_the_digest_of_its_bytes() {
    assert_eq!((hello().name(), probe().name()), ("hello", "probe"));
    let record = include_str!("../../../guests/components/SOURCES.sha256");
    for (component, file) in [(hello(), "hello.wasm"), (probe(), "probe.wasm")] {
        let line = record.lines().find(|line| line.ends_with(file)).unwrap();
        let (digest, _) = line.split_once(' ').unwrap();
        assert_eq!(component.digest(), format!("sha256:{digest}"));
    }
}

#[test]
fn a_component_outlives_its_host_value() {
    let host = crate::support::TestHost::new(crate::support::config());
    let component = host.load("probe", PROBE);
    drop(host);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(crate::support::ask(
        &component,
        crate::support::get("/spin"),
    ));
    assert_eq!(error.unwrap_err().code(), "SG0425", "the clock still runs");
}

#[test]
fn components_and_services_cross_threads() {
    fn crosses<T: Clone + Send + Sync + 'static>() {}
    crosses::<Host>();
    crosses::<Component>();
    crosses::<ComponentService>();
}
