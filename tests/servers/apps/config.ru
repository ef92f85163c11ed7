# A Rack app for Puma: /hello, and /slow?seconds=N.
run lambda { |env|
  seconds = env["QUERY_STRING"][/seconds=([\d.]+)/, 1]
  sleep seconds.to_f if seconds
  body = env["PATH_INFO"] == "/slow" ? "done" : "hello"
  [200, { "Content-Length" => body.bytesize.to_s }, [body]]
}
