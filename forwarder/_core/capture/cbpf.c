#include "capture/cbpf.h"

#define MEMORY 16u

/* An opcode is a class, and for loads a size and a mode, else an operation and the source of its operand. */
enum { LD = 0, LDX = 1, ST = 2, STX = 3, ALU = 4, JMP = 5, RET = 6, MISC = 7 };
enum { SIZE_W = 0x00, SIZE_H = 0x08, SIZE_B = 0x10 };
enum { IMM = 0x00, ABS = 0x20, IND = 0x40, MEM = 0x60, LEN = 0x80, MSH = 0xa0 };
enum { ADD = 0x00, SUB = 0x10, MUL = 0x20, DIV = 0x30, OR = 0x40, AND = 0x50, LSH = 0x60, RSH = 0x70, NEG = 0x80,
       MOD = 0x90, XOR = 0xa0 };
enum { JA = 0x00, JEQ = 0x10, JGT = 0x20, JGE = 0x30, JSET = 0x40 };
enum { BY_K = 0x00, BY_X = 0x08, BY_A = 0x10 };
enum { TAX = 0x00, TXA = 0x80 };

#define CLASS(code) ((code) & 0x07)
#define OPERATION(code) ((code) & 0xf0)

static bool is_load(uint16_t code)
{
    switch (code) {
    case LD | SIZE_W | ABS:
    case LD | SIZE_H | ABS:
    case LD | SIZE_B | ABS:
    case LD | SIZE_W | IND:
    case LD | SIZE_H | IND:
    case LD | SIZE_B | IND:
    case LD | IMM:
    case LD | MEM:
    case LD | LEN:
    case LDX | IMM:
    case LDX | MEM:
    case LDX | LEN:
    case LDX | SIZE_B | MSH:
        return true;
    default:
        return false;
    }
}

static bool is_arithmetic(const struct cbpf_insn *i)
{
    bool by_x = (i->code & BY_X) != 0;
    uint16_t operation = OPERATION(i->code);
    if (operation > XOR || (i->code & ~(0xf0 | BY_X | 0x07)) != 0)
        return false;
    return by_x || (operation != DIV && operation != MOD) || i->k != 0;
}

static bool is_jump(const struct cbpf_insn *i, uint32_t left)
{
    uint16_t operation = OPERATION(i->code);
    if (operation == JA)
        return i->code == (JMP | JA) && i->k < left;
    return operation <= JSET && (i->code & ~(0xf0 | BY_X | 0x07)) == 0 && i->jt < left && i->jf < left;
}

/* `left`: instructions behind this one. */
static bool is_sound(const struct cbpf_insn *i, uint32_t left)
{
    switch (CLASS(i->code)) {
    case LD:
    case LDX:
        return is_load(i->code) && ((i->code & 0xe0) != MEM || i->k < MEMORY);
    case ST:
    case STX:
        return i->code == CLASS(i->code) && i->k < MEMORY;
    case ALU:
        return is_arithmetic(i);
    case JMP:
        return is_jump(i, left);
    case RET:
        return i->code == (RET | BY_K) || i->code == (RET | BY_A);
    default:
        return i->code == (MISC | TAX) || i->code == (MISC | TXA);
    }
}

bool cbpf_check(const struct cbpf_insn *program, uint32_t count)
{
    if (count == 0 || count > CBPF_MOST || CLASS(program[count - 1].code) != RET)
        return false;
    for (uint32_t at = 0; at < count; at++)
        if (!is_sound(&program[at], count - at - 1))
            return false;
    return true;
}

static bool load(const uint8_t *frame, uint32_t bytes, uint64_t at, uint16_t code, uint32_t *value)
{
    uint32_t size = (code & 0x18) == SIZE_W ? 4 : (code & 0x18) == SIZE_H ? 2 : 1;
    if (at + size > bytes)
        return false;
    *value = size == 4 ? load_be32(frame + at) : size == 2 ? load_be16(frame + at) : frame[at];
    return true;
}

static uint32_t compute(uint16_t operation, uint32_t a, uint32_t operand)
{
    switch (operation) {
    case ADD: return a + operand;
    case SUB: return a - operand;
    case MUL: return a * operand;
    case DIV: return a / operand;
    case MOD: return a % operand;
    case OR:  return a | operand;
    case AND: return a & operand;
    case XOR: return a ^ operand;
    case LSH: return operand < 32 ? a << operand : 0;
    case RSH: return operand < 32 ? a >> operand : 0;
    default:  return 0u - a;
    }
}

static bool holds(uint16_t operation, uint32_t a, uint32_t operand)
{
    switch (operation) {
    case JEQ: return a == operand;
    case JGT: return a > operand;
    case JGE: return a >= operand;
    default:  return (a & operand) != 0;
    }
}

struct machine {
    uint32_t a, x, memory[MEMORY];
};

/* False: the program ends, and nothing of the frame is wanted. */
static bool load_into(struct machine *m, const struct cbpf_insn *i, const uint8_t *frame, uint32_t bytes)
{
    uint32_t *to = CLASS(i->code) == LD ? &m->a : &m->x, nibble;
    switch (i->code & 0xe0) {
    case IMM:
        *to = i->k;
        return true;
    case MEM:
        *to = m->memory[i->k];
        return true;
    case LEN:
        *to = bytes;
        return true;
    case ABS:
        return load(frame, bytes, i->k, i->code, to);
    case IND:
        return load(frame, bytes, (uint64_t)m->x + i->k, i->code, to);
    default: /* MSH: the length of an IPv4 header */
        if (!load(frame, bytes, i->k, SIZE_B, &nibble))
            return false;
        *to = 4 * (nibble & 0xf);
        return true;
    }
}

static bool calculate(struct machine *m, const struct cbpf_insn *i)
{
    uint16_t operation = OPERATION(i->code);
    uint32_t operand = (i->code & BY_X) != 0 ? m->x : i->k;
    if (operand == 0 && (operation == DIV || operation == MOD))
        return false;
    m->a = compute(operation, m->a, operand);
    return true;
}

static uint32_t jump(const struct machine *m, const struct cbpf_insn *i)
{
    if (OPERATION(i->code) == JA)
        return i->k;
    return holds(OPERATION(i->code), m->a, (i->code & BY_X) != 0 ? m->x : i->k) ? i->jt : i->jf;
}

uint32_t cbpf_run(const struct cbpf_insn *program, const uint8_t *frame, uint32_t bytes)
{
    struct machine m = {0};
    for (const struct cbpf_insn *i = program;; i++) {
        switch (CLASS(i->code)) {
        case LD:
        case LDX:
            if (!load_into(&m, i, frame, bytes))
                return 0;
            break;
        case ST:
            m.memory[i->k] = m.a;
            break;
        case STX:
            m.memory[i->k] = m.x;
            break;
        case ALU:
            if (!calculate(&m, i))
                return 0;
            break;
        case JMP:
            i += jump(&m, i);
            break;
        case RET:
            return i->code == (RET | BY_A) ? m.a : i->k;
        default:
            if (i->code == (MISC | TAX))
                m.x = m.a;
            else
                m.a = m.x;
        }
    }
}
