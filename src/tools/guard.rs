//! Which addresses a URL that came with a row may lead to.
