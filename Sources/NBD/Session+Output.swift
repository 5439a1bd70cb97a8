extension Session {
    /// Fills `segments` with what to send next, in order, from the first byte that was not yet reported sent; how many
    /// it filled.
    public func output(into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        var count = 0
        var skip = optionReplySent
        for reply in optionReplies {
            guard count < segments.count else { return count }
            segments[count] = UnsafeRawBufferPointer(rebasing: reply[skip...])
            count += 1
            skip = 0
        }
        guard let table else { return count }
        skip = replySent
        for index in 0..<table.replies.count {
            guard count + 2 <= segments.count else { return count }
            let slot = table.replies[index]
            let request = table[slot]
            let headerCount = request.pointee.replyHeaderByteCount
            if skip < headerCount {
                segments[count] = UnsafeRawBufferPointer(start: table.replyHeader(slot) + skip, count: headerCount - skip)
                count += 1
                skip = headerCount
            }
            if request.pointee.replyDataByteCount > 0, let buffer = request.pointee.buffer {
                let done = skip - headerCount
                segments[count] = UnsafeRawBufferPointer(
                    start: buffer.base + done, count: request.pointee.replyDataByteCount - done)
                count += 1
            }
            skip = 0
        }
        return count
    }

    /// So many bytes of what ``output(into:)`` named were taken; their memory is free again. True where an answer is
    /// out to its last byte.
    @discardableResult
    public mutating func sent(byteCount: Int) -> Bool {
        var rest = byteCount
        while rest > 0, let first = optionReplies.first {
            let taken = min(rest, first.count - optionReplySent)
            rest -= taken
            optionReplySent += taken
            guard optionReplySent == first.count else { return false }
            optionReplySent = 0
            optionReplyByteCount -= first.count
            optionReplies.removeFirst()
            first.deallocate()
        }
        var hasEnded = false
        while rest > 0, let slot = table?.replies.first {
            let request = table![slot]
            let total = request.pointee.replyHeaderByteCount + request.pointee.replyDataByteCount
            let taken = min(rest, total - replySent)
            rest -= taken
            replySent += taken
            guard replySent == total else { return hasEnded }
            replySent = 0
            _ = table!.replies.popFirst()
            free(slot)
            hasEnded = true
        }
        return hasEnded
    }
}
