// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! The committed C header is what the sources say. TANDEM_WRITE_HEADER=1 cargo test writes it anew.

use std::path::Path;

fn generated() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/src");
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        pragma_once: true,
        cpp_compat: true,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).to_vec(),
        usize_is_size_t: true,
        line_length: 120,
        header: Some(String::from(
            "// SPDX-FileCopyrightText: The Tandem authors\n// SPDX-License-Identifier: Apache-2.0\n\n\
             // The C border of rust/text, generated from its sources by rust/header; do not edit.",
        )),
        ..Default::default()
    };
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(sources.join("border.rs"))
        .with_src(sources.join("tokenizer.rs"))
        .with_src(sources.join("template.rs"))
        .generate()
        .expect("the sources parse")
        .write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

#[test]
fn header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/include/tandem_text.h");
    if std::env::var_os("TANDEM_WRITE_HEADER").is_some() {
        std::fs::write(&path, generated()).expect("the header is writable");
    }
    let committed = std::fs::read_to_string(&path).expect("the header exists");
    assert!(committed == generated(), "tandem_text.h is old: run TANDEM_WRITE_HEADER=1 cargo test -p tandem-header");
}
