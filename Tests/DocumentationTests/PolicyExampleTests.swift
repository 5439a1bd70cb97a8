import Multipath
import Testing
import Timebase

/// The worked examples of docs/policies.md, played on the policies themselves.
///
/// A block marked `text policy` begins with the policy and its options, then the paths in configured order
/// (`A primary weight 3`), then steps: `8 requests: A A B A …`, `A lost`, `A back`, `after 30s`, `A has 3 outstanding`,
/// `A is non-optimized`, `read 8 blocks at 0: A`.
@Suite struct PolicyExampleTests {
    @Test func everyWorkedExampleComesOutAsWritten() throws {
        let blocks = try Document.blocks().filter { $0.info == "text policy" }
        var kinds: Set<PolicyKind> = []
        for block in blocks {
            var play = try Play(block)
            for line in block.lines.dropFirst(2) { try play.step(line) }
            kinds.insert(play.kind)
            #expect(play.selections > 0, "\(block): no request")
        }
        #expect(kinds == Set(PolicyKind.allCases), "each policy has an example")
    }
}

private struct UnknownWords: Error, CustomStringConvertible {
    var description: String
}

private struct Play {
    let kind: PolicyKind
    let block: FencedBlock
    private var policy: any LoadBalancePolicy
    private var names: [String] = []
    private let table: CandidateTable
    private var now = Instant(nanoseconds: 1_000_000_000)
    private(set) var selections = 0

    init(_ block: FencedBlock) throws {
        self.block = block
        let words = block.lines[0].split(separator: " ").map(String.init)
        guard let kind = PolicyKind(name: words[0]) else { throw UnknownWords(description: "\(block): \(words[0])") }
        self.kind = kind
        var options = PolicyOptions()
        for pair in words.dropFirst().joined(separator: " ").split(separator: ",") {
            let option = pair.split(separator: " ").map(String.init)
            switch (option[0], option[1]) {
            case ("switch-after", let count): options.switchAfter = .requests(UInt32(count)!)
            case ("fail-back", "manual"): options.failBack = .manual
            case ("fail-back", "after"): options.failBack = .after(.seconds(Int(option[2].dropLast())!))
            case ("activate-standby", let value): options.activateStandby = ActivateStandby(rawValue: value)!
            case ("weights", let value): options.weights = WeightMeaning(rawValue: value)!
            case ("sequential-affinity", "true"): options.sequentialAffinity = true
            default: throw UnknownWords(description: "\(block): \(pair)")
            }
        }
        policy = PolicySettings(kind, options: options).makePolicy()
        let paths = block.lines[1].split(separator: ",").map { $0.split(separator: " ").map(String.init) }
        // Small and for the life of the process: loads are pointers that the table does not own.
        let rows = UnsafeMutablePointer<PathCandidate>.allocate(capacity: paths.count)
        for (order, path) in paths.enumerated() {
            let load = UnsafeMutablePointer<LoadCounters>.allocate(capacity: 1)
            load.initialize(to: LoadCounters())
            let weight = path.firstIndex(of: "weight").map { UInt16(path[$0 + 1])! } ?? 1
            (rows + order).initialize(
                to: PathCandidate(
                    grade: .optimized, role: path.contains("standby") ? .standby : .primary, weight: weight,
                    order: Int32(order), load: load))
            names.append(path[0])
        }
        table = CandidateTable(rows: rows, count: paths.count)
        policy.candidatesChanged(table, at: now)
    }

    private func row(_ name: String) throws -> UnsafeMutablePointer<PathCandidate> {
        guard let index = names.firstIndex(of: name) else { throw UnknownWords(description: "\(block): no path \(name)") }
        return table.rows + index
    }

    mutating func step(_ line: String) throws {
        if let match = line.wholeMatch(of: /(\d+) requests?: ([A-Z ]+?)(?: +\((.*)\))?/) {
            let wanted = match.output.2.split(separator: " ").map(String.init)
            #expect(wanted.count == Int(match.output.1), "\(block): \(line)")
            let chosen = wanted.map { _ in choose(PolicyRequest(blockCount: 8, byteCount: 4096)) }
            #expect(chosen == wanted, "\(block): \(line)")
            if let counts = match.output.3 {
                let actual = names.compactMap { name in
                    let count = chosen.count { $0 == name }
                    return count == 0 ? nil : "\(name) \(count)"
                }
                #expect(actual.joined(separator: ", ") == counts, "\(block): \(line)")
            }
        } else if let match = line.wholeMatch(of: /(read|write) (\d+) blocks at (\d+): ([A-Z])/) {
            let count = UInt32(match.output.2)!
            let chosen = choose(
                PolicyRequest(lba: UInt64(match.output.3)!, blockCount: count, byteCount: count * 512, isRead: match.output.1 == "read"))
            #expect(chosen == String(match.output.4), "\(block): \(line)")
        } else if let match = line.wholeMatch(of: /([A-Z]) (?:is )?(lost|back|non-optimized)/) {
            let row = try row(String(match.output.1))
            switch match.output.2 {
            case "lost": row.pointee.grade = .unusable
            case "back": row.pointee.grade = .optimized
            default: row.pointee.grade = .nonOptimized
            }
            if match.output.2 == "lost" { row.pointee.wasLost = true } else { row.pointee.usableSince = now }
            policy.candidatesChanged(table, at: now)
        } else if let match = line.wholeMatch(of: /([A-Z]) has (\d+) (outstanding|KiB outstanding)/) {
            let load = try row(String(match.output.1)).pointee.load
            let value = Int(match.output.2)!
            if match.output.3 == "outstanding" { load.pointee.requests = value } else { load.pointee.bytes = value << 10 }
        } else if let match = line.wholeMatch(of: /after (\d+)s/) {
            now = now + .seconds(Int(match.output.1)!)
            if policy.nextDeadline <= now { policy.candidatesChanged(table, at: now) }
        } else {
            throw UnknownWords(description: "\(block): '\(line)'")
        }
    }

    private mutating func choose(_ request: PolicyRequest) -> String {
        selections += 1
        let index = policy.select(request, from: table, at: now).index
        return index < 0 ? "-" : names[Int(index)]
    }
}
