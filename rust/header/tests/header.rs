// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! The committed C headers are what the sources say. TANDEM_WRITE_HEADER=1 cargo test writes it anew.

use std::path::Path;

struct Header {
    folder: &'static str,
    sources: &'static [&'static str],
    /// Of other headers whose types this one names.
    includes: &'static [&'static str],
}

const HEADERS: [Header; 2] = [
    Header { folder: "text", sources: &["border.rs", "tokenizer.rs", "template.rs", "grammar.rs"], includes: &[] },
    Header { folder: "image", sources: &["decode.rs", "resize.rs"], includes: &["tandem_text.h"] },
];

fn generated(header: &Header) -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(header.folder).join("src");
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        pragma_once: true,
        cpp_compat: true,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).to_vec(),
        includes: header.includes.iter().map(|name| name.to_string()).collect(),
        usize_is_size_t: true,
        line_length: 120,
        header: Some(format!(
            "// SPDX-FileCopyrightText: The Tandem authors\n// SPDX-License-Identifier: Apache-2.0\n\n\
             // The C border of rust/{}, generated from its sources by rust/header; do not edit.",
            header.folder
        )),
        ..Default::default()
    };
    let mut text = Vec::new();
    let builder = header.sources.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(sources.join(name))
    });
    builder.generate().expect("the sources parse").write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

#[test]
fn headers_are_up_to_date() {
    for header in &HEADERS {
        let name = format!("tandem_{}.h", header.folder);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(header.folder).join("include").join(&name);
        if std::env::var_os("TANDEM_WRITE_HEADER").is_some() {
            std::fs::write(&path, generated(header)).expect("the header is writable");
        }
        let committed = std::fs::read_to_string(&path).expect("the header exists");
        assert!(committed == generated(header), "{name} is old: run TANDEM_WRITE_HEADER=1 cargo test -p tandem-header");
    }
}
