/// Taking turns over a list that changes: what round robin and round robin with subset share.
struct Rotation: Sendable {
    private(set) var members: [Int32] = []
    private var position = 0
    private var left: UInt64 = 0
    private let quantum: UInt64
    private let countsBytes: Bool

    init(switchAfter: SwitchAfter) {
        switch switchAfter {
        case .requests(let count):
            quantum = UInt64(max(count, 1))
            countsBytes = false
        case .bytes(let count):
            quantum = max(count, 1)
            countsBytes = true
        }
    }

    /// The turn goes on where it was if that member stays, else to the one that followed it.
    mutating func setMembers(_ new: [Int32]) {
        guard new != members else { return }
        var next = 0
        if !members.isEmpty {
            for step in 0..<members.count {
                let candidate = members[(position + step) % members.count]
                if let index = new.firstIndex(of: candidate) {
                    next = index
                    if step > 0 { left = 0 }
                    break
                }
            }
        }
        members = new
        position = next
    }

    /// The next member with room, and whether its turn had already begun (with what is left of it).
    mutating func take(byteCount: UInt32, from table: CandidateTable) -> (index: Int32, continues: Bool) {
        let count = members.count
        for step in 0..<count {
            var place = position + step
            if place >= count { place -= count }
            let index = members[place]
            guard table.rows[Int(index)].hasRoom else { continue }
            let continues = step == 0 && left > 0
            if !continues { left = quantum }
            let cost = countsBytes ? UInt64(max(byteCount, 512)) : 1
            left = left > cost ? left - cost : 0
            position = place
            if left == 0 { position = place + 1 == count ? 0 : place + 1 }
            return (index, continues)
        }
        return (-1, false)
    }

    func reason(continues: Bool) -> SelectionReason {
        if members.count == 1 { return .onlyOne }
        return continues
            ? .turnContinues(left: left, inBytes: countsBytes) : .turn(of: Int32(members.count))
    }
}
