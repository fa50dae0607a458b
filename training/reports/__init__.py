"""Pages about runs: what a folder holds, its curves as SVG, the page around them."""
