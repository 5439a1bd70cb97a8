/// What ``PDUDecoder/next(_:)`` came to.
@frozen
public enum DecoderStep: Hashable, Sendable {
    /// The input is used up; nothing is lost, more is needed.
    case needMore
    /// A header is complete and, where header digests are on, verified. If it announces data, say where
    /// the data goes before the next step: `place(into:)`, `collect(limit:)` or `discard()`.
    case header
    /// The PDU is complete, padding and digest included.
    case complete
    /// As `complete`, but the data digest was wrong: the data must not be used. The stream is still in
    /// step, so a level above 0 can recover (RFC 7143 section 7.8).
    case dataDigestError
    /// The connection can't go on. Every later step gives the same.
    case failed(ProtocolError)
}

/// Takes a byte stream apart into PDUs (RFC 7143 section 11.2), in chunks of any size.
///
///     while true {
///         switch decoder.next(&input) {
///         case .header: where decoder.header announces data: decoder.place(into: buffer)
///         case .complete: handle decoder.header and decoder.collectedData
///         …
///
/// Data segments go straight to the caller's memory, or are collected in a buffer that the decoder keeps
/// and reuses. Between `.header` and `.complete`, ``directWindow`` is the part of the caller's memory that
/// a socket may fill by itself; ``placed(byteCount:)`` says that it did. No allocation, except where a
/// collected data segment is longer than every one before. Owned by one thread.
public struct PDUDecoder: ~Copyable {
    @usableFromInline
    enum Phase: UInt8 {
        case header, additionalHeader, headerDigest
        /// `.header` was returned; where the data goes is not said yet.
        case undecided
        case data, padding, dataDigest
        /// All is there; `.complete` is to be said.
        case finished
        case failed
    }

    @usableFromInline
    enum Destination: UInt8 {
        case nowhere, caller, collected
    }

    /// The header of the present PDU, from `.header` until the step after `.complete`.
    @inlinable public var header: BasicHeaderSegment { basic }
    @usableFromInline var basic = BasicHeaderSegment()
    @usableFromInline var phase = Phase.header
    @usableFromInline var destination = Destination.nowhere
    /// Whether each header is followed by a digest; to be changed only between PDUs.
    public var headerDigest = false { willSet { precondition(isBetweenPDUs) } }
    /// Whether each data segment is followed by a digest; to be changed only between PDUs.
    public var dataDigest = false { willSet { precondition(isBetweenPDUs) } }
    /// Bytes of the present part (header, AHS, digest, data, padding) that are there.
    @usableFromInline var filled = 0
    /// The MaxRecvDataSegmentLength that we declared, in bytes; 8192 until login ends.
    public var maxDataSegmentByteCount: Int

    /// At level 1 and above: a PDU whose header digest is wrong is dropped, with as much data as it announces, and
    /// counted. The next header's digest tells whether that was its length: where it is wrong as well, the stream is
    /// out of step and the decoder fails (RFC 7143 section 7.8).
    public var toleratesHeaderDigestErrors = false
    public private(set) var headerDigestErrorCount: UInt64 = 0
    /// The PDU that is being taken in was given up.
    private var isDropping = false
    private var lastHeaderWasWrong = false

    private var running: UInt32 = 0
    private var receivedDigest: UInt32 = 0
    private var target: UnsafeMutableRawPointer?
    private var failure = ProtocolError.dataSegmentTooLong(byteCount: 0, limit: 0)
    private let crc32c: CRC32CFunction
    private let maxAdditionalHeaderByteCount: Int
    private var additional: UnsafeMutableRawPointer?
    @usableFromInline var additionalByteCount = 0
    private var collected: UnsafeMutableRawPointer?
    private var collectedCapacity = 0
    @usableFromInline var collectedByteCount = 0

    /// `maxAdditionalHeaderByteCount` is at most 1020, what a header can announce.
    public init(
        crc32c: CRC32CFunction, maxDataSegmentByteCount: Int = 8192, maxAdditionalHeaderByteCount: Int = 1020
    ) {
        self.crc32c = crc32c
        self.maxDataSegmentByteCount = maxDataSegmentByteCount
        self.maxAdditionalHeaderByteCount = min(maxAdditionalHeaderByteCount, 1020)
    }

    deinit {
        additional?.deallocate()
        collected?.deallocate()
    }

    /// False from a PDU's first byte to its last: a stream that ends then was cut off.
    @inlinable public var isBetweenPDUs: Bool { phase == .header && filled == 0 }

    /// Goes on to the next thing worth saying and takes what it used from the front of `input`. To be
    /// called until it says `.needMore`, even with an empty input: the end of a PDU may already be in.
    @inlinable
    public mutating func next(_ input: inout UnsafeRawBufferPointer) -> DecoderStep {
        if phase == .header, filled == 0, !headerDigest, input.count >= 48, input[4] == 0 {
            basic = BasicHeaderSegment(loadingFrom: input.baseAddress!)
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(48))
            additionalByteCount = 0
            return headerArrived()
        }
        return advance(&input)
    }

    // MARK: where the data goes

    /// The data segment goes to `buffer`, which must have room for all of it and stay valid until the PDU
    /// is complete or discarded.
    @inlinable
    public mutating func place(into buffer: UnsafeMutableRawBufferPointer) {
        guard header.dataSegmentByteCount > 0 else { return }
        precondition(phase == .undecided, "data is placed once, after its header")
        precondition(buffer.count >= header.dataSegmentByteCount, "the buffer must hold the data segment")
        beginData(.caller, at: buffer.baseAddress)
    }

    /// The data segment goes to the decoder's own buffer and will be ``collectedData``. Where it is
    /// longer than `limit` bytes, the next step fails.
    public mutating func collect(limit: Int) {
        let byteCount = header.dataSegmentByteCount
        guard byteCount > 0 else { return }
        precondition(phase == .undecided, "data is collected once, after its header")
        guard byteCount <= limit else {
            fail(.collectedDataTooLong(byteCount: byteCount, limit: limit))
            return
        }
        if byteCount > collectedCapacity {
            collected?.deallocate()
            // Rounded up, so that texts that grow a little do not allocate each time.
            collectedCapacity = (byteCount + 4095) & ~4095
            collected = .allocate(byteCount: collectedCapacity, alignment: 8)
        }
        beginData(.collected, at: collected)
    }

    /// The data segment, or what is still missing of it, is read and thrown away (its digest is still
    /// checked). Takes back the memory that was given to `place(into:)`.
    public mutating func discard() {
        if phase == .undecided {
            beginData(.nowhere, at: nil)
        } else if phase == .data {
            destination = .nowhere
            target = nil
        }
    }

    /// What is still missing of a placed data segment: memory that a socket may fill directly. Empty
    /// where nothing is being placed.
    public var directWindow: UnsafeMutableRawBufferPointer {
        guard phase == .data, destination == .caller, let target else {
            return UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        return UnsafeMutableRawBufferPointer(start: target + filled, count: header.dataSegmentByteCount - filled)
    }

    /// The first `byteCount` bytes of ``directWindow`` were filled by somebody else.
    public mutating func placed(byteCount: Int) {
        guard byteCount > 0 else { return }
        let window = directWindow
        precondition(byteCount <= window.count, "more bytes were placed than the window had")
        if dataDigest { running = crc32c(running, window.baseAddress, byteCount) }
        filled += byteCount
        if filled == header.dataSegmentByteCount { dataArrived() }
    }

    /// The data segment of a collected PDU, from `.complete` until the next step; empty otherwise.
    public var collectedData: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: collected, count: collectedByteCount)
    }

    /// The AHS of the present PDU, from `.header` until the step after `.complete`.
    public var additionalHeader: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: additional, count: additionalByteCount)
    }

    // MARK: inside

    @usableFromInline
    mutating func beginData(_ destination: Destination, at target: UnsafeMutableRawPointer?) {
        self.destination = destination
        self.target = target
        phase = .data
        filled = 0
        running = CRC32C.seed
    }

    /// The header is whole and trusted.
    @inlinable
    mutating func headerArrived() -> DecoderStep {
        filled = 0
        collectedByteCount = 0
        let byteCount = header.dataSegmentByteCount
        guard byteCount <= maxDataSegmentByteCount else {
            return fail(.dataSegmentTooLong(byteCount: byteCount, limit: maxDataSegmentByteCount))
        }
        phase = byteCount == 0 ? .finished : .undecided
        return .header
    }

    @discardableResult
    @usableFromInline
    mutating func fail(_ error: ProtocolError) -> DecoderStep {
        phase = .failed
        failure = error
        return .failed(error)
    }

    /// Goes on behind a PDU whose header is damaged, where that may be tried.
    private mutating func dropPDU() -> Bool {
        guard toleratesHeaderDigestErrors, !lastHeaderWasWrong, header.dataSegmentByteCount <= maxDataSegmentByteCount else {
            return false
        }
        lastHeaderWasWrong = true
        headerDigestErrorCount += 1
        filled = 0
        collectedByteCount = 0
        if header.dataSegmentByteCount == 0 {
            phase = .header
        } else {
            isDropping = true
            beginData(.nowhere, at: nil)
        }
        return true
    }

    /// Every phase, whatever the chunks.
    @usableFromInline
    mutating func advance(_ input: inout UnsafeRawBufferPointer) -> DecoderStep {
        while true {
            switch phase {
            case .data:
                guard takeData(&input) else { return .needMore }
            case .finished:
                phase = .header
                guard !isDropping else {
                    isDropping = false
                    continue
                }
                return .complete
            case .header:
                guard takeHeader(&input) else { return .needMore }
                additionalByteCount = header.totalAHSByteCount
                guard additionalByteCount <= maxAdditionalHeaderByteCount else {
                    return fail(.additionalHeaderTooLong(byteCount: additionalByteCount, limit: maxAdditionalHeaderByteCount))
                }
                // Nothing will make a length right that no peer may send: no wait for what it announces besides. With
                // a header digest, that comes first: it tells damage from intent.
                let byteCount = header.dataSegmentByteCount
                if !headerDigest, byteCount > maxDataSegmentByteCount {
                    return fail(.dataSegmentTooLong(byteCount: byteCount, limit: maxDataSegmentByteCount))
                }
                if additionalByteCount > 0 {
                    phase = .additionalHeader
                    if additional == nil { additional = .allocate(byteCount: maxAdditionalHeaderByteCount, alignment: 8) }
                } else if headerDigest {
                    phase = .headerDigest
                } else {
                    return headerArrived()
                }
            case .additionalHeader:
                guard take(additionalByteCount, of: &input, to: additional) else { return .needMore }
                guard headerDigest else { return headerArrived() }
                phase = .headerDigest
            case .headerDigest:
                guard takeDigest(&input) else { return .needMore }
                let computed = headerDigestValue
                guard computed == receivedDigest else {
                    guard dropPDU() else {
                        return fail(.headerDigestMismatch(received: receivedDigest, computed: computed))
                    }
                    continue
                }
                lastHeaderWasWrong = false
                return headerArrived()
            case .undecided:
                preconditionFailure("after a header with data: place, collect or discard")
            case .padding:
                guard takePadding(&input) else { return .needMore }
                phase = dataDigest ? .dataDigest : .finished
            case .dataDigest:
                guard takeDigest(&input) else { return .needMore }
                phase = .header
                guard !isDropping else {
                    isDropping = false
                    continue
                }
                return ~running == receivedDigest ? .complete : .dataDigestError
            case .failed:
                return .failed(failure)
            }
        }
    }

    /// Up to `byteCount` bytes in all, into `destination`; true and `filled` back at 0 when they are there.
    @inline(__always)
    private mutating func take(
        _ byteCount: Int, of input: inout UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer?
    ) -> Bool {
        let count = min(byteCount - filled, input.count)
        if count > 0 {
            destination.unsafelyUnwrapped.advanced(by: filled).copyMemory(from: input.baseAddress!, byteCount: count)
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(count))
            filled += count
        }
        guard filled == byteCount else { return false }
        filled = 0
        return true
    }

    private mutating func takeHeader(_ input: inout UnsafeRawBufferPointer) -> Bool {
        let count = min(48 - filled, input.count)
        for offset in 0..<count { basic[byte: filled + offset] = input[offset] }
        input = UnsafeRawBufferPointer(rebasing: input.dropFirst(count))
        filled += count
        guard filled == 48 else { return false }
        filled = 0
        return true
    }

    private mutating func takeDigest(_ input: inout UnsafeRawBufferPointer) -> Bool {
        if filled == 0, input.count >= 4 {
            receivedDigest = UInt32(littleEndian: input.loadUnaligned(as: UInt32.self))
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(4))
            return true
        }
        if filled == 0 { receivedDigest = 0 }
        while filled < 4, let byte = input.first {
            receivedDigest |= UInt32(byte) << UInt32(8 * filled)
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(1))
            filled += 1
        }
        guard filled == 4 else { return false }
        filled = 0
        return true
    }

    /// Over the header and its AHS (section 11.2.3).
    private var headerDigestValue: UInt32 {
        let basic = withUnsafeBytes(of: basic) { crc32c(CRC32C.seed, $0.baseAddress, 48) }
        return ~(additionalByteCount > 0 ? crc32c(basic, additional, additionalByteCount) : basic)
    }

    private mutating func takeData(_ input: inout UnsafeRawBufferPointer) -> Bool {
        let total = header.dataSegmentByteCount
        let count = min(total - filled, input.count)
        if count > 0 {
            let source = input.baseAddress!
            if let target { target.advanced(by: filled).copyMemory(from: source, byteCount: count) }
            if dataDigest { running = crc32c(running, source, count) }
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(count))
            filled += count
        }
        guard filled == total else { return false }
        dataArrived()
        return true
    }

    private mutating func dataArrived() {
        filled = 0
        target = nil
        if destination == .collected { collectedByteCount = header.dataSegmentByteCount }
        if header.dataSegmentByteCount & 3 != 0 {
            phase = .padding
        } else {
            phase = dataDigest ? .dataDigest : .finished
        }
    }

    /// Up to three bytes, part of what the digest covers whatever they are (section 11.2.4).
    private mutating func takePadding(_ input: inout UnsafeRawBufferPointer) -> Bool {
        let padding = -header.dataSegmentByteCount & 3
        let count = min(padding - filled, input.count)
        if count > 0 {
            if dataDigest { running = crc32c(running, input.baseAddress, count) }
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(count))
            filled += count
        }
        guard filled == padding else { return false }
        filled = 0
        return true
    }
}
