/// Writes a ``PathsReport`` as OpenMetrics text (OpenMetrics 1.0), ending with `# EOF`.
public enum MetricsText {
    /// Who is to read it.
    public enum Form: Hashable, Sendable {
        /// Whoever asks one process, and knows all of OpenMetrics.
        case openMetrics
        /// A file for node_exporter's textfile collector, which knows the types of Prometheus's older text format only: what are
        /// an info and a state set in OpenMetrics are gauges. Of several processes, of which two may hold one LUN: every sample
        /// has a label `pid`, so that no two have the same labels. It is OpenMetrics as well.
        case textfile
    }

    /// What one process says, `# EOF` included.
    public static func render(_ report: PathsReport) -> String { render(report, as: .openMetrics) }

    /// The whole text, `# EOF` included.
    public static func render(_ report: PathsReport, as form: Form) -> String {
        var writer = MetricsWriter(report, form)
        writer.writeLUNs()
        writer.writePaths()
        return writer.text + "# EOF\n"
    }
}

private struct MetricsWriter {
    typealias Labels = [(String, String)]

    enum Kind: String {
        case counter, gauge, info
        case stateSet = "stateset"
    }

    let luns: [(snapshot: LUNSnapshot, labels: Labels)]
    let form: MetricsText.Form
    var text = ""

    init(_ report: PathsReport, _ form: MetricsText.Form) {
        self.form = form
        var seen: [String: Int] = [:]
        luns = report.luns.map { lun in
            var labels: Labels = [("lun", lun.name)]
            guard form == .textfile, let holder = lun.holder else { return (lun, labels) }
            labels.append(("pid", String(holder.pid)))
            // Two managers of one process.
            let number = seen["\(holder.pid) \(lun.name)", default: 0] + 1
            seen["\(holder.pid) \(lun.name)"] = number
            if number > 1 { labels.append(("manager", String(number))) }
            return (lun, labels)
        }
    }

    // MARK: What there is

    mutating func writeLUNs() {
        header("mpio_lun", .info, "What the LUN is.")
        for (lun, labels) in luns {
            let facts = [
                ("identity", lun.identity ?? ""), ("vendor", lun.vendor), ("product", lun.product), ("policy", lun.policy), ("dsm", lun.dsm),
            ]
            sample("mpio_lun", .info, labels + facts, "1")
        }
        header("mpio_lun_state", .stateSet, "How the LUN is.")
        for (lun, labels) in luns {
            for state in LUNState.allCases {
                sample("mpio_lun_state", .stateSet, labels + [("mpio_lun_state", state.rawValue)], lun.state == state ? "1" : "0")
            }
        }
        lunFamily("mpio_lun_capacity_bytes", .gauge, "The size of the LUN.", unit: "bytes") { String($0.capacityBytes) }
        lunFamily("mpio_lun_queued_requests", .gauge, "Requests that wait for a path.") { String($0.queued) }
        lunFamily("mpio_lun_failovers", .counter, "Times that traffic went to another path.") { String($0.failovers) }
    }

    mutating func writePaths() {
        header("mpio_path_state", .stateSet, "How the path is.")
        for (lun, labels) in luns {
            for path in lun.paths {
                for state in PathState.allCases {
                    sample(
                        "mpio_path_state", .stateSet, labels + [("path", path.id), ("mpio_path_state", state.rawValue)],
                        path.state == state ? "1" : "0")
                }
            }
        }
        pathFamily("mpio_path_requests", .counter, "Requests that the path has carried.") { String($0.requests) }
        pathFamily("mpio_path_read_bytes", .counter, "Bytes read over the path.", unit: "bytes") { String($0.bytesRead) }
        pathFamily("mpio_path_written_bytes", .counter, "Bytes written over the path.", unit: "bytes") { String($0.bytesWritten) }
        pathFamily("mpio_path_errors", .counter, "Errors of the path.") { String($0.errors) }
        pathFamily("mpio_path_in_flight_requests", .gauge, "Requests outstanding on the path.") { String($0.inFlight) }
        pathFamily("mpio_path_in_flight_blocks", .gauge, "Blocks outstanding on the path.") { String($0.inFlightBlocks) }
        pathFamily("mpio_path_latency_p50_seconds", .gauge, "Half of the requests took no longer.", unit: "seconds") { Self.seconds($0.latency.p50) }
        pathFamily("mpio_path_latency_p99_seconds", .gauge, "99 of 100 requests took no longer.", unit: "seconds") { Self.seconds($0.latency.p99) }
    }

    // MARK: How it is written

    private mutating func lunFamily(_ name: String, _ kind: Kind, _ help: String, unit: String? = nil, _ value: (LUNSnapshot) -> String) {
        header(name, kind, help, unit: unit)
        for (lun, labels) in luns { sample(name, kind, labels, value(lun)) }
    }

    private mutating func pathFamily(_ name: String, _ kind: Kind, _ help: String, unit: String? = nil, _ value: (PathSnapshot) -> String?) {
        header(name, kind, help, unit: unit)
        for (lun, labels) in luns {
            for path in lun.paths {
                if let value = value(path) { sample(name, kind, labels + [("path", path.id)], value) }
            }
        }
    }

    private static func seconds(_ microseconds: Double?) -> String? {
        guard let microseconds, microseconds.isFinite else { return nil }
        return String(microseconds / 1_000_000)
    }

    private mutating func header(_ name: String, _ kind: Kind, _ help: String, unit: String? = nil) {
        var (name, type) = (name, kind.rawValue)
        if form == .textfile, kind == .info || kind == .stateSet {
            // A gauge is called as its samples are.
            name += suffix(kind)
            type = Kind.gauge.rawValue
        }
        text += "# TYPE \(name) \(type)\n"
        if let unit { text += "# UNIT \(name) \(unit)\n" }
        text += "# HELP \(name) \(help)\n"
    }

    private mutating func sample(_ name: String, _ kind: Kind, _ labels: Labels, _ value: String) {
        let written = labels.map { "\($0.0)=\"\(escaped($0.1))\"" }.joined(separator: ",")
        text += "\(name)\(suffix(kind)){\(written)} \(value)\n"
    }

    private func suffix(_ kind: Kind) -> String {
        switch kind {
        case .counter: "_total"
        case .info: "_info"
        case .gauge, .stateSet: ""
        }
    }

    /// Backslash, quote and line feed are escaped (OpenMetrics section "ABNF", `normal-char`).
    private func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
