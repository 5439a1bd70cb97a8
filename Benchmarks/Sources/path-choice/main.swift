// What it costs to choose a path: for each policy and number of paths, through the module that a disk asks, with 32
// requests outstanding. Prints a table in Markdown; fails where choosing allocates.
import AllocationCount
import Foundation
import Measuring
import Multipath
import Timebase

/// Rows of usable paths, and the requests that are out on them.
struct Paths: ~Copyable {
    static let depth = 32
    let table: CandidateTable
    private let loads: UnsafeMutablePointer<LoadCounters>
    /// The rows of the last requests, oldest at `position`.
    private let outstanding: UnsafeMutablePointer<Int32>
    private var position = 0

    init(count: Int) {
        loads = .allocate(capacity: count)
        loads.initialize(repeating: LoadCounters(), count: count)
        let rows = UnsafeMutablePointer<PathCandidate>.allocate(capacity: count)
        for index in 0..<count {
            (rows + index).initialize(
                to: PathCandidate(
                    grade: .optimized, role: index % 2 == 0 ? .primary : .standby, weight: UInt16(index % 4 + 1),
                    order: Int32(index), load: loads + index))
        }
        table = CandidateTable(rows: rows, count: count)
        outstanding = .allocate(capacity: Self.depth)
        outstanding.initialize(repeating: -1, count: Self.depth)
    }

    deinit {
        table.rows.deallocate()
        loads.deallocate()
        outstanding.deallocate()
    }

    /// A request goes out by this row, and the oldest one ends.
    @inline(__always)
    mutating func issue(_ row: Int32) {
        let old = outstanding[position]
        if old >= 0 {
            table.rows[Int(old)].inFlight -= 1
            table.rows[Int(old)].load.pointee.requests -= 1
            table.rows[Int(old)].load.pointee.bytes -= 4096
        }
        table.rows[Int(row)].inFlight += 1
        table.rows[Int(row)].load.pointee.requests += 1
        table.rows[Int(row)].load.pointee.bytes += 4096
        outstanding[position] = row
        position = (position + 1) % Self.depth
    }
}

let choices = 400_000

/// Nanoseconds for each of `choices` turns of `body`, which gets the turn's number and says the row.
func nanoseconds(_ paths: inout Paths, _ body: (UInt64) -> Int32) -> Double {
    let began = monotonic_ns()
    for turn in 0..<UInt64(choices) { paths.issue(body(turn)) }
    return Double(monotonic_ns() - began) / Double(choices)
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

func measure(_ kind: PolicyKind, pathCount: Int) -> (nanoseconds: Double, allocations: UInt64) {
    var paths = Paths(count: pathCount)
    let module: any DeviceSpecificModule = DefaultDSM(policy: PolicySettings(kind))
    let table = paths.table
    module.candidatesChanged(table, at: .zero)
    var results: [Double] = []
    var allocations: UInt64 = 0
    for _ in 0..<7 {
        // The books of issue and end, which are no part of the choice, are measured by themselves.
        let books = nanoseconds(&paths) { Int32(truncatingIfNeeded: $0 % UInt64(pathCount)) }
        let before = thread_allocation_count()
        let all = nanoseconds(&paths) { turn in
            let request = PolicyRequest(lba: turn &* 8, blockCount: 8, byteCount: 4096, isRead: true)
            return module.selectPath(for: request, from: table, at: .zero).index
        }
        allocations += thread_allocation_count() - before
        results.append(max(0, all - books))
    }
    return (median(results), allocations)
}

let counts = [2, 8, 64]
var allocations: UInt64 = 0
print("| policy | " + counts.map { "\($0) paths" }.joined(separator: " | ") + " |")
print("|---|" + String(repeating: "---|", count: counts.count))
for kind in PolicyKind.allCases {
    let results = counts.map { measure(kind, pathCount: $0) }
    allocations += results.reduce(0) { $0 + $1.allocations }
    let cells = results.map { String(format: "%.1f ns", $0.nanoseconds) }
    print("| \(kind.rawValue) | " + cells.joined(separator: " | ") + " |")
}
print("\nHeap allocations in \(choices * counts.count * PolicyKind.allCases.count * 7) choices: \(allocations)")
exit(allocations == 0 ? 0 : 1)
