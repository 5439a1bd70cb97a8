import Foundation

/// A terminal that shows a text which changes, in place: scrolls where the text is longer than the window, and gives the
/// screen back as it was.
final class WatchScreen {
    enum Key: Equatable { case quit, up, down, pageUp, pageDown, top, bottom, other }

    /// What the keys that came in mean, and what is left of a sequence that has not come in full.
    static func keys(_ bytes: inout [UInt8]) -> [Key] {
        var keys: [Key] = []
        while let first = bytes.first {
            guard first == 0x1B else {
                bytes.removeFirst()
                keys.append(plain(first))
                continue
            }
            // Escape alone, or the beginning of a sequence, of which the rest may still come.
            guard bytes.count > 1 else { return keys }
            guard bytes[1] == UInt8(ascii: "[") || bytes[1] == UInt8(ascii: "O") else {
                bytes.removeFirst()
                continue
            }
            guard let end = bytes.dropFirst(2).firstIndex(where: { (0x40...0x7E).contains($0) }) else {
                if bytes.count > 16 { bytes.removeAll() }
                return keys
            }
            keys.append(sequence(Array(bytes[2...end])))
            bytes.removeSubrange(...end)
        }
        return keys
    }

    private static func plain(_ byte: UInt8) -> Key {
        switch byte {
        case UInt8(ascii: "q"), UInt8(ascii: "Q"): .quit
        case UInt8(ascii: "k"): .up
        case UInt8(ascii: "j"), 0x0A, 0x0D: .down
        case UInt8(ascii: "b"): .pageUp
        case UInt8(ascii: " "), UInt8(ascii: "f"): .pageDown
        case UInt8(ascii: "g"): .top
        case UInt8(ascii: "G"): .bottom
        default: .other
        }
    }

    private static func sequence(_ bytes: [UInt8]) -> Key {
        switch String(decoding: bytes, as: UTF8.self) {
        case "A": .up
        case "B": .down
        case "5~": .pageUp
        case "6~": .pageDown
        case "H", "1~": .top
        case "F", "4~": .bottom
        default: .other
        }
    }

    // MARK: What is shown

    /// The first line that is shown.
    private(set) var offset = 0
    private var lines: [String] = []
    private let size: () -> (columns: Int, rows: Int)
    private let write: (String) throws -> Void

    init(size: @escaping () -> (columns: Int, rows: Int), write: @escaping (String) throws -> Void) {
        self.size = size
        self.write = write
    }

    /// Lines of text above the one that tells where one is.
    private var room: Int { max(1, size().rows - 1) }

    func show(_ text: String) throws {
        lines = text.components(separatedBy: "\n")
        if lines.last == "" { lines.removeLast() }
        try draw()
    }

    /// True: it was asked to end.
    func handle(_ keys: [Key]) throws -> Bool {
        for key in keys {
            switch key {
            case .quit: return true
            case .up: offset -= 1
            case .down: offset += 1
            case .pageUp: offset -= room
            case .pageDown: offset += room
            case .top: offset = 0
            case .bottom: offset = lines.count
            case .other: break
            }
            offset = clamped(offset)
        }
        if !keys.isEmpty { try draw() }
        return false
    }

    private func clamped(_ offset: Int) -> Int { max(0, min(offset, lines.count - room)) }

    /// Each line over the old one, so that nothing flickers; what is left of the old ones is erased.
    func draw() throws {
        offset = clamped(offset)
        let columns = size().columns
        let shown = lines.dropFirst(offset).prefix(room)
        var text = "\u{1B}[H"
        for line in shown { text += Self.cut(line, columns) + "\u{1B}[K\r\n" }
        text += "\u{1B}[J\u{1B}[\(room + 1);1H" + Self.cut(foot(shown.count), columns) + "\u{1B}[K"
        try write(text)
    }

    private func foot(_ count: Int) -> String {
        guard lines.count > room else { return "q quits" }
        return "lines \(offset + 1)–\(offset + count) of \(lines.count); ↑ ↓ space b g G scroll, q quits"
    }

    /// The line without what does not fit; colours take no room.
    static func cut(_ line: String, _ columns: Int) -> String {
        guard line.count > columns else { return line }
        var result = ""
        var count = 0
        var isEscape = false
        for character in line {
            if character == "\u{1B}" { isEscape = true }
            if !isEscape {
                if count == columns { continue }
                count += 1
            }
            result.append(character)
            if isEscape, character.isLetter { isEscape = false }
        }
        return result
    }
}

/// The terminal without echo and line editing, on its other screen, until ``restore()``.
final class RawTerminal {
    private var old = termios()
    private var isActive = false

    /// Nil where standard input is no terminal.
    init?() {
        guard isatty(STDIN_FILENO) == 1, tcgetattr(STDIN_FILENO, &old) == 0 else { return nil }
        var raw = old
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
        withUnsafeMutableBytes(of: &raw.c_cc) { controls in
            controls[Int(VMIN)] = 0
            controls[Int(VTIME)] = 0
        }
        guard tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0 else { return nil }
        isActive = true
    }

    /// What was typed; nothing where nothing was within the time.
    func read(within milliseconds: Int32) -> [UInt8] {
        var entry = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, milliseconds) > 0 else { return [] }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = Foundation.read(STDIN_FILENO, &bytes, bytes.count)
        // The terminal is gone.
        if count == 0 { return [UInt8(ascii: "q")] }
        return count > 0 ? Array(bytes[..<count]) : []
    }

    func restore() {
        guard isActive else { return }
        isActive = false
        tcsetattr(STDIN_FILENO, TCSANOW, &old)
    }

    deinit { restore() }
}
