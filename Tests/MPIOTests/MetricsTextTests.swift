import Testing

@testable import MPIO

/// What a reader of metrics makes of a text.
private struct ParsedMetrics {
    var types: [String: String] = [:]
    /// Each series, name and labels, with its value.
    var series: [String: String] = [:]
    var mistakes: [String] = []

    /// - Parameter types: those that the reader knows.
    init(_ text: String, knownTypes: Set<String>) {
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3).map(String.init)
            if line.hasPrefix("# TYPE ") {
                if !knownTypes.contains(words[3]) { mistakes.append("unknown type: \(line)") }
                if types.updateValue(words[3], forKey: words[2]) != nil { mistakes.append("a second TYPE: \(line)") }
                if series.keys.contains(where: { $0.hasPrefix(words[2] + "{") }) { mistakes.append("TYPE after its samples: \(line)") }
            }
            if line.hasPrefix("#") { continue }
            guard let space = line.lastIndex(of: " "), Double(line[line.index(after: space)...]) != nil else {
                mistakes.append("no sample: \(line)")
                continue
            }
            let name = String(line[..<space])
            if series.updateValue(String(line[line.index(after: space)...]), forKey: name) != nil { mistakes.append("twice: \(name)") }
        }
    }
}

@Suite struct MetricsTextTests {
    /// Prometheus's text format 0.0.4, which node_exporter's textfile collector reads: a file with another type is dropped whole.
    private static let textfileTypes: Set = ["counter", "gauge", "histogram", "summary", "untyped"]
    private static let openMetricsTypes: Set = ["counter", "gauge", "info", "stateset"]

    private func lun(_ pid: Int32, requests: UInt64) -> LUNSnapshot {
        var lun = SnapshotRendererTests.sample
        lun.holder?.pid = pid
        lun.paths[0].requests = requests
        return lun
    }

    @Test func theTextfileCollectorTakesWhatTwoHoldersOfOneLUNSay() {
        let text = MetricsText.render(PathsReport(luns: [lun(1, requests: 5), lun(2, requests: 6), lun(2, requests: 7)]), as: .textfile)
        let parsed = ParsedMetrics(text, knownTypes: Self.textfileTypes)
        #expect(parsed.mistakes.isEmpty, "\(parsed.mistakes)")
        #expect(parsed.types["mpio_lun_info"] == "gauge" && parsed.types["mpio_path_state"] == "gauge" && parsed.types["mpio_lun_state"] == "gauge")
        let name = "mpio_path_requests_total{lun=\"vm-store\",pid="
        #expect(parsed.series[name + "\"1\",path=\"10.0.1.10:3260\"}"] == "5")
        #expect(parsed.series[name + "\"2\",path=\"10.0.1.10:3260\"}"] == "6")
        #expect(parsed.series[name + "\"2\",manager=\"2\",path=\"10.0.1.10:3260\"}"] == "7")
        #expect(parsed.series.keys.contains { $0.hasPrefix("mpio_lun_info{lun=\"vm-store\",pid=\"1\",identity=\"naa.") })
        #expect(text.hasSuffix("\n# EOF\n"))
    }

    @Test func aProcessTellsOfItselfInOpenMetrics() {
        let text = MetricsText.render(PathsReport(luns: [lun(1, requests: 5)]))
        let parsed = ParsedMetrics(text, knownTypes: Self.openMetricsTypes)
        #expect(parsed.mistakes.isEmpty, "\(parsed.mistakes)")
        #expect(parsed.types["mpio_lun"] == "info" && parsed.types["mpio_path_state"] == "stateset")
        #expect(parsed.series["mpio_path_requests_total{lun=\"vm-store\",path=\"10.0.1.10:3260\"}"] == "5")
        #expect(!text.contains("pid="))
    }
}
