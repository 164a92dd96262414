"""`make page` and `make play`: a web page that draws with the blocks, without a server behind it."""
