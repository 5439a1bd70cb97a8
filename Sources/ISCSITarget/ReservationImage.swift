import ISCSI
import SCSI

/// Persistent reservations as text, for a ``ReservationStore``: nexuses by their names, since indexes mean nothing
/// to the next process.
///
///     mpio reservations 1
///     registration KEY ISID GROUP-TAG INITIATOR-NAME
///     reservation TYPE ISID GROUP-TAG INITIATOR-NAME
struct ReservationImage: Equatable {
    struct Entry: Equatable {
        var key: UInt64
        var isid: ISID
        var groupTag: UInt16
        var initiatorName: String
    }

    var registrations: [Entry] = []
    /// Its maker is an index of `registrations`.
    var reservation: (type: ReservationType, maker: Int)?

    private static let title = "mpio reservations 1"

    static func == (left: Self, right: Self) -> Bool {
        left.registrations == right.registrations && left.reservation?.type == right.reservation?.type
            && left.reservation?.maker == right.reservation?.maker
    }

    func encode() -> [UInt8] {
        var text = Self.title + "\n"
        for entry in registrations {
            text += "registration \(String(entry.key, radix: 16)) \(Self.port(entry))\n"
        }
        if let reservation {
            text += "reservation \(reservation.type.rawValue) \(Self.port(registrations[reservation.maker]))\n"
        }
        return Array(text.utf8)
    }

    private static func port(_ entry: Entry) -> String {
        "\(String(entry.isid.rawValue, radix: 16)) \(entry.groupTag) \(escaped(entry.initiatorName))"
    }

    /// The number of the first line that is wrong.
    struct BadLine: Error, Equatable { var number: Int }

    init() {}

    init(parsing bytes: [UInt8]) throws(BadLine) {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw BadLine(number: 1) }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.first.map(String.init) == Self.title, lines.last == "" else { throw BadLine(number: 1) }
        for (index, line) in lines.enumerated().dropFirst().dropLast() {
            guard apply(line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)) else {
                throw BadLine(number: index + 1)
            }
        }
    }

    private mutating func apply(_ words: [String]) -> Bool {
        guard words.count == 5, let isid = UInt64(words[2], radix: 16), isid < 1 << 48, let tag = UInt16(words[3]),
            let name = Self.unescaped(words[4])
        else { return false }
        let same = registrations.firstIndex {
            $0.isid.rawValue == isid && $0.groupTag == tag && $0.initiatorName == name
        }
        switch words[0] {
        case "registration":
            guard same == nil, let key = UInt64(words[1], radix: 16), key != 0,
                registrations.count < PersistentReservations.capacity
            else { return false }
            registrations.append(Entry(key: key, isid: ISID(rawValue: isid), groupTag: tag, initiatorName: name))
            return true
        case "reservation":
            guard reservation == nil, let same, let number = UInt8(words[1]), number < 16 else { return false }
            let type = ReservationType(rawValue: number)
            reservation = (type, same)
            return type.isDefined
        default: return false
        }
    }

    /// A name holds whatever the peer said: what would break the lines is written as %XX.
    private static func escaped(_ name: String) -> String {
        name.utf8.map { byte in
            (0x21...0x7E).contains(byte) && byte != UInt8(ascii: "%")
                ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }

    private static func unescaped(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return bytes.isEmpty ? nil : String(validating: bytes, as: UTF8.self)
    }
}
