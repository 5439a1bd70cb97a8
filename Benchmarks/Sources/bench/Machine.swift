import Foundation

/// Where something was measured.
struct Machine: Codable {
    var processor: String
    var processorCount: Int
    var kernel: String
    /// Programs that wanted a processor when it began (the load of the last minute).
    var load: Double

    static var current: Machine {
        func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        let model = text("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }
            .flatMap { $0.split(separator: ":").last }.map { $0.trimmingCharacters(in: .whitespaces) }
        let release = text("/proc/sys/kernel/osrelease").trimmingCharacters(in: .whitespacesAndNewlines)
        return Machine(
            processor: model ?? "unknown processor", processorCount: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
            kernel: "Linux " + (release.split(separator: "-").first.map(String.init) ?? release),
            load: Double(text("/proc/loadavg").split(separator: " ").first ?? "") ?? 0)
    }

    var words: String { "\(processorCount) processors (\(processor)), \(kernel)" }
}

/// Today, as 2026-11-21.
func today() -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.dateFormat = "yyyy-MM-dd"
    return formatter.string(from: Date())
}
