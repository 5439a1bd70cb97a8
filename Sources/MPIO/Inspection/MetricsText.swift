/// Writes a ``PathsReport`` as OpenMetrics text (OpenMetrics 1.0), ending with `# EOF`.
public enum MetricsText {
    /// The whole text, `# EOF` included.
    public static func render(_ report: PathsReport) -> String {
        var text = ""
        lunMetrics(report, into: &text)
        pathMetrics(report, into: &text)
        return text + "# EOF\n"
    }

    private static func lunMetrics(_ report: PathsReport, into text: inout String) {
        func family(_ name: String, _ kind: String, _ help: String, unit: String? = nil, _ value: (LUNSnapshot) -> String) {
            header(name, kind, help, unit: unit, into: &text)
            for lun in report.luns { sample(name, kind, [("lun", lun.name)], value(lun), into: &text) }
        }
        header("mpio_lun", "info", "What the LUN is.", into: &text)
        for lun in report.luns {
            let labels = [
                ("lun", lun.name), ("identity", lun.identity ?? ""), ("vendor", lun.vendor), ("product", lun.product),
                ("policy", lun.policy), ("dsm", lun.dsm),
            ]
            sample("mpio_lun", "info", labels, "1", into: &text)
        }
        header("mpio_lun_state", "stateset", "How the LUN is.", into: &text)
        for lun in report.luns {
            for state in LUNState.allCases {
                sample("mpio_lun_state", "stateset", [("lun", lun.name), ("mpio_lun_state", state.rawValue)], lun.state == state ? "1" : "0", into: &text)
            }
        }
        family("mpio_lun_capacity_bytes", "gauge", "The size of the LUN.", unit: "bytes") { String($0.capacityBytes) }
        family("mpio_lun_queued_requests", "gauge", "Requests that wait for a path.") { String($0.queued) }
        family("mpio_lun_failovers", "counter", "Times that traffic went to another path.") { String($0.failovers) }
    }

    private static func pathMetrics(_ report: PathsReport, into text: inout String) {
        func labels(_ lun: LUNSnapshot, _ path: PathSnapshot) -> [(String, String)] { [("lun", lun.name), ("path", path.id)] }
        func family(_ name: String, _ kind: String, _ help: String, unit: String? = nil, _ value: (PathSnapshot) -> String?) {
            header(name, kind, help, unit: unit, into: &text)
            for lun in report.luns {
                for path in lun.paths {
                    if let value = value(path) { sample(name, kind, labels(lun, path), value, into: &text) }
                }
            }
        }
        header("mpio_path_state", "stateset", "How the path is.", into: &text)
        for lun in report.luns {
            for path in lun.paths {
                for state in PathState.allCases {
                    sample("mpio_path_state", "stateset", labels(lun, path) + [("mpio_path_state", state.rawValue)], path.state == state ? "1" : "0", into: &text)
                }
            }
        }
        family("mpio_path_requests", "counter", "Requests that the path has carried.") { String($0.requests) }
        family("mpio_path_read_bytes", "counter", "Bytes read over the path.", unit: "bytes") { String($0.bytesRead) }
        family("mpio_path_written_bytes", "counter", "Bytes written over the path.", unit: "bytes") { String($0.bytesWritten) }
        family("mpio_path_errors", "counter", "Errors of the path.") { String($0.errors) }
        family("mpio_path_in_flight_requests", "gauge", "Requests outstanding on the path.") { String($0.inFlight) }
        family("mpio_path_in_flight_blocks", "gauge", "Blocks outstanding on the path.") { String($0.inFlightBlocks) }
        family("mpio_path_latency_p50_seconds", "gauge", "Half of the requests took no longer.", unit: "seconds") { seconds($0.latency.p50) }
        family("mpio_path_latency_p99_seconds", "gauge", "99 of 100 requests took no longer.", unit: "seconds") { seconds($0.latency.p99) }
    }

    private static func seconds(_ microseconds: Double?) -> String? {
        guard let microseconds, microseconds.isFinite else { return nil }
        return String(microseconds / 1_000_000)
    }

    private static func header(_ name: String, _ kind: String, _ help: String, unit: String? = nil, into text: inout String) {
        text += "# TYPE \(name) \(kind)\n"
        if let unit { text += "# UNIT \(name) \(unit)\n" }
        text += "# HELP \(name) \(help)\n"
    }

    private static func sample(_ name: String, _ kind: String, _ labels: [(String, String)], _ value: String, into text: inout String) {
        let suffix = ["counter": "_total", "info": "_info"][kind] ?? ""
        let written = labels.map { "\($0.0)=\"\(escaped($0.1))\"" }.joined(separator: ",")
        text += "\(name)\(suffix){\(written)} \(value)\n"
    }

    /// Backslash, quote and line feed are escaped (OpenMetrics section "ABNF", `normal-char`).
    private static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
