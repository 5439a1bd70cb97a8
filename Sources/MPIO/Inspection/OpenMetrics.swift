/// A report as OpenMetrics text, for a collector that reads text files.
enum OpenMetrics {
    static func text(_ report: PathsReport) -> String {
        var lines: [String] = []
        func family(_ name: String, _ type: String, _ help: String, _ samples: [(labels: String, value: String)]) {
            lines.append("# TYPE mpio_\(name) \(type)")
            lines.append("# HELP mpio_\(name) \(help)")
            let suffix = type == "counter" ? "_total" : ""
            for sample in samples { lines.append("mpio_\(name)\(suffix){\(sample.labels)} \(sample.value)") }
        }
        let paths = report.luns.flatMap { lun in lun.paths.map { (lun, $0) } }
        func perPath(_ value: (PathSnapshot) -> String?) -> [(labels: String, value: String)] {
            paths.compactMap { lun, path in value(path).map { (labels(lun, path), $0) } }
        }
        family("lun_state", "stateset", "State of the LUN.", report.luns.flatMap { lun in
            LUNState.allCases.map { state in
                (label("lun", lun.name) + "," + label("mpio_lun_state", state.rawValue), lun.state == state ? "1" : "0")
            }
        })
        family("lun_failovers", "counter", "Fail-overs since the LUN was opened.", report.luns.map {
            (label("lun", $0.name), "\($0.failovers)")
        })
        family("lun_queued", "gauge", "Requests that wait for a path.", report.luns.map { (label("lun", $0.name), "\($0.queued)") })
        family("path_usable", "gauge", "1 where the path can carry data.", perPath { $0.state.isUsable ? "1" : "0" })
        family("path_in_flight", "gauge", "Requests outstanding.", perPath { "\($0.inFlight)" })
        family("path_requests", "counter", "Requests issued.", perPath { "\($0.requests)" })
        family("path_read_bytes", "counter", "Bytes read.", perPath { "\($0.bytesRead)" })
        family("path_written_bytes", "counter", "Bytes written.", perPath { "\($0.bytesWritten)" })
        family("path_errors", "counter", "Failed attempts.", perPath { "\($0.errors)" })
        family("path_latency_p99_seconds", "gauge", "99th percentile of the latency since the LUN was opened.", perPath {
            $0.latency.p99.map { "\($0 / 1e6)" }
        })
        lines.append("# EOF")
        return lines.joined(separator: "\n") + "\n"
    }

    private static func labels(_ lun: LUNSnapshot, _ path: PathSnapshot) -> String {
        label("lun", lun.name) + "," + label("path", path.id)
    }

    private static func label(_ name: String, _ value: String) -> String {
        let escaped = value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
        return "\(name)=\"\(escaped)\""
    }
}
