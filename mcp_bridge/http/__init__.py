"""HTTP parts that precede every decision: headers, limits, request ids, shutdown."""
