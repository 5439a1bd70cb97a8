import Foundation
import MPIO
import TestSupport

/// Random reads and writes of blocks, so many at a time, every block checked against what was last written there.
///
/// Each block written carries its number and a generation that counts up in every sector, so that a lost write, a
/// late one, a torn one and one to the wrong place each show. No two requests of a load touch one block at a time.
/// It expects zeroes where it has not written yet.
final class VerifiedLoad: @unchecked Sendable {
    struct Options {
        var depth = 32
        var blockByteCount = 4096
        /// Many, so that few later writes overlap one whose path was lost, which the stale-write guard makes wait.
        var blockCount = 8192
        /// Where the blocks lie, in bytes.
        var offset: UInt64 = 0
        var writePercent = 50
        var seed: UInt64 = 0x9E37_79B9_7F4A_7C15
        /// Pauses of this length and more are kept for ``takePauses()``; nil: none.
        var notedPause: Duration?
    }

    struct Report {
        var requestCount = 0
        var writeCount = 0
        var errorCount = 0
        var mismatchCount = 0
        /// The longest time without a completion while requests were under way.
        var longestPause = Duration.zero
        /// The longest time from a request's submission to its end, and in words what it was.
        var longestRequest = Duration.zero
        var longestRequestWords = ""
        /// When it was submitted.
        var longestRequestBegin = ContinuousClock.now
        /// The first few errors and mismatches, in words.
        var complaints: [String] = []
    }

    /// A time without a completion while requests were under way.
    struct Pause {
        var begin: ContinuousClock.Instant
        var end: ContinuousClock.Instant
        var length: Duration { begin.duration(to: end) }
    }

    private enum Content {
        case known(UInt64)
        /// A failed write leaves the block as it was or as it should have become; nobody touches it again.
        case either(UInt64, UInt64)
    }

    private let disk: MultipathDisk
    private let options: Options
    private let lock = NSLock()
    private let memory: IOBuffer
    private let expected: IOBuffer
    private var queue: IOQueue?
    /// Set while requests are under way: they use the memory, even where a failed test lets go of the load.
    private var own: VerifiedLoad?

    private var contents: [Content]
    private var isBusy: [Bool]
    private var slots: [(block: Int, generation: UInt64?, since: ContinuousClock.Instant)]
    private var random: UInt64
    private var generation: UInt64 = 0
    private var report = Report()
    private var underWay = 0
    private var remaining = Int.max
    private var lastCompletion = ContinuousClock.now
    private var pauses: [Pause] = []

    init(_ disk: MultipathDisk, _ options: Options = Options()) {
        precondition(options.blockCount >= 2 * options.depth && options.blockByteCount % 512 == 0)
        self.disk = disk
        self.options = options
        memory = IOBuffer(byteCount: options.depth * options.blockByteCount)
        expected = IOBuffer(byteCount: options.blockByteCount)
        contents = Array(repeating: .known(0), count: options.blockCount)
        isBusy = Array(repeating: false, count: options.blockCount)
        slots = Array(repeating: (0, nil, .now), count: options.depth)
        random = options.seed
    }

    // MARK: Running

    /// Begins, and goes on until ``stop()`` or for `requestCount` requests.
    func start(requestCount: Int = .max) {
        let first = lock.withLock {
            precondition(underWay == 0, "one run at a time")
            if queue == nil { queue = IOQueue(disk: disk) { [unowned self] in completed($0) } }
            remaining = requestCount
            lastCompletion = .now
            own = self
            return (0..<min(options.depth, requestCount)).map { next(slot: $0, at: lastCompletion) }
        }
        queue?.submit(first)
    }

    /// Ends once all that is under way has.
    func stop(within limit: Duration = .seconds(60)) async throws {
        lock.withLock { remaining = 0 }
        try await wait(within: limit)
    }

    /// Runs `requestCount` requests to their end.
    func run(requestCount: Int, within limit: Duration = .seconds(60)) async throws {
        start(requestCount: requestCount)
        try await wait(within: limit)
    }

    private func wait(within limit: Duration) async throws {
        guard try await eventually(within: limit, { lock.withLock { underWay == 0 } }) else {
            throw LoadFailure.requestsHang(lock.withLock { underWay })
        }
    }

    /// Lets so many more requests complete.
    func proceed(_ count: Int, within limit: Duration = .seconds(30)) async throws {
        let goal = soFar.requestCount + count
        guard try await eventually(within: limit, { soFar.requestCount >= goal }) else {
            throw LoadFailure.requestsHang(lock.withLock { underWay })
        }
    }

    var soFar: Report { lock.withLock { report } }

    /// Returns the longest pause since the last call, one that still lasts included.
    func takeLongestPause() -> Duration {
        lock.withLock {
            let pause = underWay > 0 ? max(report.longestPause, lastCompletion.duration(to: .now)) : report.longestPause
            report.longestPause = .zero
            return pause
        }
    }

    /// Returns the pauses that ended since the last call, oldest first; see ``Options/notedPause``.
    func takePauses() -> [Pause] {
        lock.withLock {
            let taken = pauses
            pauses.removeAll(keepingCapacity: true)
            return taken
        }
    }

    // MARK: Requests, with the lock held

    private func next(slot: Int, at now: ContinuousClock.Instant) -> IORequest {
        remaining -= 1
        underWay += 1
        let block = pickBlock()
        isBusy[block] = true
        let start = memory.bytes.baseAddress! + slot * options.blockByteCount
        let isWrite = nextRandom() % 100 < UInt64(options.writePercent)
        if isWrite {
            generation += 1
            stamp(start, block: block, generation: generation)
        } else {
            // Not what a read that does nothing could leave there.
            memset(start, 0xEE, options.blockByteCount)
        }
        slots[slot] = (block, isWrite ? generation : nil, now)
        return IORequest(
            isWrite ? .write : .read, offset: options.offset + UInt64(block * options.blockByteCount),
            byteCount: options.blockByteCount, memory: start, token: UInt64(slot))
    }

    private func pickBlock() -> Int {
        // An eighth of the requests goes to a sixteenth of the blocks.
        let range = nextRandom() % 8 == 0 ? max(options.blockCount / 16, options.depth * 2) : options.blockCount
        var block = Int(nextRandom() % UInt64(range))
        while isUnavailable(block) { block = (block + 1) % options.blockCount }
        return block
    }

    private func isUnavailable(_ block: Int) -> Bool {
        if case .either = contents[block] { return true }
        return isBusy[block]
    }

    private func nextRandom() -> UInt64 {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return random
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        let more = lock.withLock {
            let now = ContinuousClock.now
            note(Pause(begin: lastCompletion, end: now))
            lastCompletion = now
            var more: [IORequest] = []
            for completion in completions {
                let slot = Int(completion.token)
                ended(slot, completion.error, at: now)
                if remaining > 0 { more.append(next(slot: slot, at: now)) }
            }
            if underWay == 0 { own = nil }
            return more
        }
        if !more.isEmpty { queue?.submit(more) }
    }

    private func note(_ pause: Pause) {
        report.longestPause = max(report.longestPause, pause.length)
        if let noted = options.notedPause, pause.length >= noted { pauses.append(pause) }
    }

    private func ended(_ slot: Int, _ error: DiskError?, at now: ContinuousClock.Instant) {
        let (block, written, since) = slots[slot]
        if since.duration(to: now) > report.longestRequest {
            report.longestRequest = since.duration(to: now)
            report.longestRequestWords = "\(written == nil ? "read" : "write") of block \(block)"
            report.longestRequestBegin = since
        }
        isBusy[block] = false
        underWay -= 1
        report.requestCount += 1
        if written != nil { report.writeCount += 1 }
        if let error {
            report.errorCount += 1
            complain("\(written == nil ? "read" : "write") of block \(block): \(error)")
            if let written, case .known(let old) = contents[block] { contents[block] = .either(old, written) }
        } else if let written {
            contents[block] = .known(written)
        } else {
            check(memory.bytes.baseAddress! + slot * options.blockByteCount, block: block, "read")
        }
    }

    private func complain(_ words: String) {
        if report.complaints.count < 10 { report.complaints.append(words) }
    }

    // MARK: Stamps

    private func stamp(_ start: UnsafeMutableRawPointer, block: Int, generation: UInt64) {
        guard generation > 0 else {
            memset(start, 0, options.blockByteCount)
            return
        }
        memset(start, Int32(truncatingIfNeeded: (generation &* 31 &+ UInt64(block)) & 0xFF), options.blockByteCount)
        for sector in stride(from: 0, to: options.blockByteCount, by: 512) {
            start.storeBytes(of: UInt64(block), toByteOffset: sector, as: UInt64.self)
            start.storeBytes(of: generation, toByteOffset: sector + 8, as: UInt64.self)
        }
    }

    private func check(_ found: UnsafeRawPointer, block: Int, _ what: String) {
        func holds(_ generation: UInt64) -> Bool {
            stamp(expected.bytes.baseAddress!, block: block, generation: generation)
            return memcmp(found, expected.bytes.baseAddress!, options.blockByteCount) == 0
        }
        switch contents[block] {
        case .known(let generation):
            if holds(generation) { return }
        case .either(let old, let new):
            if holds(old) || holds(new) { return }
        }
        report.mismatchCount += 1
        let stamps = stride(from: 0, to: options.blockByteCount, by: 512).map { sector in
            "\(found.loadUnaligned(fromByteOffset: sector, as: UInt64.self)):\(found.loadUnaligned(fromByteOffset: sector + 8, as: UInt64.self))"
        }
        complain("\(what): block \(block) should hold \(contents[block]), holds \(Set(stamps).sorted())")
    }

    // MARK: At the end

    /// Reads every block back through the disk and compares.
    func verifyDisk() async throws {
        let blocksAtOnce = max(1, (1 << 20) / options.blockByteCount)
        let buffer = IOBuffer(byteCount: blocksAtOnce * options.blockByteCount)
        for first in stride(from: 0, to: options.blockCount, by: blocksAtOnce) {
            let count = min(blocksAtOnce, options.blockCount - first)
            try await disk.read(
                into: buffer, range: 0..<(count * options.blockByteCount),
                at: options.offset + UInt64(first * options.blockByteCount))
            lock.withLock {
                for index in 0..<count {
                    check(buffer.bytes.baseAddress! + index * options.blockByteCount, block: first + index, "at the end")
                }
            }
        }
    }

    /// Compares with the target's own file.
    func verify(file path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemError(call: "open \(path)") }
        defer { close(descriptor) }
        let buffer = IOBuffer(byteCount: options.blockByteCount)
        for block in 0..<options.blockCount {
            let offset = off_t(options.offset) + off_t(block * options.blockByteCount)
            guard pread(descriptor, buffer.bytes.baseAddress!, options.blockByteCount, offset) == options.blockByteCount else {
                throw SystemError(call: "pread \(path)")
            }
            lock.withLock { check(buffer.bytes.baseAddress!, block: block, "in the file") }
        }
    }
}

enum LoadFailure: Error {
    case requestsHang(Int)
}
