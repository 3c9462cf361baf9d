// Native and Python stacks put together. The evaluation loop is a function of this program here.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "analysis_model.h"
#include "own_module.h"

extern "C" {
#include "analysis/stack.h"
#include "util/pyfile.h"
#include "util/strbuf.h"

// Their addresses stand for native frames.
void *_PyEval_EvalFrameDefault(void *p);
void *_TAIL_CALL_CALL(void *p);
void *merge_native_leaf(void *p);
void *merge_native_call(void *p);
void *merge_native_main(void *p);

__attribute__((noinline)) void *_PyEval_EvalFrameDefault(void *p)
{
	asm volatile("" : "+r"(p));
	return p;
}

__attribute__((noinline)) void *_TAIL_CALL_CALL(void *p)
{
	asm volatile("nop\n\tnop\n\tnop\n\tnop" : "+r"(p));
	return p;
}

__attribute__((noinline)) void *merge_native_leaf(void *p)
{
	asm volatile("nop" : "+r"(p));
	return p;
}

__attribute__((noinline)) void *merge_native_call(void *p)
{
	asm volatile("nop\n\tnop" : "+r"(p));
	return p;
}

__attribute__((noinline)) void *merge_native_main(void *p)
{
	asm volatile("nop\n\tnop\n\tnop" : "+r"(p));
	return p;
}
}

namespace
{

class StackMerge : public testing::Test
{
      protected:
	StackMerge()
	{
		lib = m.module(own.path, own.build_id);
	}

	// Native frames by letter, outermost first: M main, C call, L leaf, E evaluation loop,
	// H its instruction's handler; T frames left out, X the walk ended.
	uint32_t native(const std::string &frames)
	{
		uint32_t node = 0;

		for (char c : frames) {
			if (c == 'T' || c == 'X') {
				node = m.native(node, NO_ID,
						c == 'T' ? MT_FRAME_TRUNCATED : MT_FRAME_BAD_STACK);
				continue;
			}
			auto *f = c == 'M'   ? merge_native_main
				  : c == 'C' ? merge_native_call
				  : c == 'L' ? merge_native_leaf
				  : c == 'H' ? _TAIL_CALL_CALL
					     : _PyEval_EvalFrameDefault;

			node = m.native(node, lib, own.address(f) + 1);
		}
		return node;
	}

	// Python functions by letter, outermost first; capitals are entry frames.
	uint32_t python(const std::string &frames)
	{
		uint32_t node = 0;

		for (char c : frames)
			node = m.python(node, m.code("/a.py", std::string(1, c), 1), isupper(c));
		return node;
	}

	// What comes of it: letters innermost first, Python's in parentheses; '!' if uncertain.
	std::string merged(const std::string &native_frames, const std::string &python_frames)
	{
		uint32_t n = native(native_frames), p = python(python_frames);
		symbolizer *s = symbolizer_new(nullptr);
		std::string out;
		struct stack st;

		stack_merge(m.get(), s, n, p, &st);
		for (size_t i = 0; i < st.frames.count; i++) {
			std::string f = st.frames.items[i].f.function;

			if (st.frames.items[i].f.is_python)
				out += "(" + f + ")";
			else
				out += f == "merge_native_main"		 ? "M"
				       : f == "merge_native_call"	 ? "C"
				       : f == "merge_native_leaf"	 ? "L"
				       : f == "_PyEval_EvalFrameDefault" ? "E"
				       : f == "_TAIL_CALL_CALL"		 ? "H"
				       : f == "[frames left out]"	 ? "T"
									 : "X";
		}
		if (st.uncertain)
			out += "!";
		stack_release(&st);
		symbolizer_free(s);
		return out;
	}

	ModelMaker m;
	OwnModule own;
	uint32_t lib;
};

} // namespace

TEST_F(StackMerge, EachLoopIsReplacedByTheFramesItRan)
{
	EXPECT_EQ(merged("MEL", "A"), "L(A)M");
	EXPECT_EQ(merged("MECEL", "AB"), "L(B)C(A)M");
	EXPECT_EQ(merged("MECEL", "AbcDe"), "L(e)(D)C(c)(b)(A)M"); // calls inside one loop
	EXPECT_EQ(merged("MEEEL", "ABC"), "L(C)(B)(A)M");
	EXPECT_EQ(merged("ML", ""), "LM");
	EXPECT_EQ(merged("", "A"), "(A)!");
	EXPECT_EQ(merged("", ""), "");
}

TEST_F(StackMerge, WhereCountsDifferBothPartsAreShownAndMarked)
{
	EXPECT_EQ(merged("MECEL", "A"), "L(A)ECEM!");
	EXPECT_EQ(merged("MEL", "AB"), "L(B)(A)EM!");
	EXPECT_EQ(merged("ML", "A"), "(A)LM!");
	EXPECT_EQ(merged("MEL", ""), "LEM!");
}

// A build whose loop is a chain of functions: the last one stands beside the function that began it,
// or alone where the compiler let that one go too.
TEST_F(StackMerge, AHandlerAndItsLoopAreOne)
{
	EXPECT_EQ(merged("MEHL", "A"), "LH(A)M");
	EXPECT_EQ(merged("MEHCEHL", "AbC"), "LH(C)CH(b)(A)M");
	EXPECT_EQ(merged("MHCHL", "AB"), "L(B)C(A)M");
	EXPECT_EQ(merged("MEHEL", "AB"), "L(B)H(A)M");
	EXPECT_EQ(merged("MEHL", "AB"), "LH(B)(A)EM!");
}

// A compiled instruction's memory has no unwind tables: what lies inside it, then Python's frames.
TEST_F(StackMerge, OfCompiledCodePythonsFramesFollow)
{
	EXPECT_EQ(merged("XL", "Ab"), "LX(b)(A)");
}

TEST_F(StackMerge, OfACutStackTheTwoEndsMatch)
{
	// The innermost loop ran C, the outermost A; B's loop is among the frames left out.
	EXPECT_EQ(merged("METEL", "ABC"), "L(C)T(B)(A)M");
	EXPECT_EQ(merged("METL", "AB"), "LT(B)(A)M");
	EXPECT_EQ(merged("MTEL", "AB"), "L(B)T(A)M");
	EXPECT_EQ(merged("METEL", "AB"), "L(B)T(A)M");
	EXPECT_EQ(merged("METEL", "A"), "L(A)ETEM!"); // more loops than runs
}

TEST_F(StackMerge, OfAStackThatCouldNotBeFollowedTheInnerEndMatches)
{
	EXPECT_EQ(merged("XECEL", "ABC"), "L(C)C(B)X(A)");
	EXPECT_EQ(merged("XL", "AB"), "LX(B)(A)");
}

TEST_F(StackMerge, PythonFramesThatWereLeftOutAreSaid)
{
	uint32_t outer = m.python(0, m.code("/a.py", "A", 1));
	uint32_t inner = m.python(m.python(outer, NO_ID, false), m.code("/a.py", "B", 1));
	symbolizer *s = symbolizer_new(nullptr);
	struct stack st;

	stack_merge(m.get(), s, native("MEEL"), inner, &st);
	ASSERT_EQ(st.frames.count, 5u);
	EXPECT_STREQ(st.frames.items[2].f.function, "[frames left out]");
	EXPECT_TRUE(st.frames.items[2].f.is_python);
	stack_release(&st);
	symbolizer_free(s);
}

TEST(Stack, TheLoopIsKnownInAllPartsThatCompilersMake)
{
	EXPECT_TRUE(stack_is_eval_loop("_PyEval_EvalFrameDefault"));
	EXPECT_TRUE(stack_is_eval_loop("_PyEval_EvalFrameDefault.cold"));
	EXPECT_TRUE(stack_is_eval_loop("_TAIL_CALL_CALL"));
	EXPECT_FALSE(stack_is_eval_loop("_PyEval_Vector"));
	EXPECT_FALSE(stack_is_eval_loop("PyEval_EvalCode"));
	EXPECT_FALSE(stack_is_eval_loop(nullptr));
}

TEST(Stack, FilesOfTheLibraryAndOfPackagesAreNotTheUsers)
{
	EXPECT_TRUE(pyfile_is_users("/home/me/train.py"));
	EXPECT_TRUE(pyfile_is_users("train.py"));
	EXPECT_TRUE(pyfile_is_users("<string>"));
	EXPECT_TRUE(pyfile_is_users("/opt/lib/python3-tools/x.py")); // a folder of that name
	EXPECT_FALSE(pyfile_is_users("/usr/lib/python3.11/json/decoder.py"));
	EXPECT_FALSE(pyfile_is_users("/v/lib/python3.11/site-packages/torch/__init__.py"));
	EXPECT_FALSE(pyfile_is_users("/usr/lib/python3/dist-packages/numpy/__init__.py"));
	EXPECT_FALSE(pyfile_is_users("<frozen importlib._bootstrap>"));
	EXPECT_FALSE(pyfile_is_users(nullptr));
}

namespace
{

std::string placed(const char *function, const char *file, uint32_t line, bool is_python)
{
	struct stack_frame f = {};
	struct strbuf sb = STRBUF_INIT;
	std::string out;

	f.f.function = function;
	f.f.file = file;
	f.f.line = line;
	f.f.is_python = is_python;
	stack_place_add(&sb, &f);
	out = sb.buf;
	strbuf_release(&sb);
	return out;
}

} // namespace

TEST(Stack, PlacesAreShort)
{
	EXPECT_EQ(placed("train", "/home/me/train.py", 42, true), "train.py:42");
	EXPECT_EQ(placed("f", "/v/lib/python3.11/site-packages/torch/nn/linear.py", 9, true),
		  "torch/nn/linear.py:9");
	EXPECT_EQ(placed("f", "/usr/lib/python3.11/json/decoder.py", 3, true), "json/decoder.py:3");
	EXPECT_EQ(placed("leak", "/src/leak.c", 7, false), "leak.c:7");
	EXPECT_EQ(placed("libx.so+0x12", nullptr, 0, false), "libx.so+0x12");
}

TEST(Stack, FunctionsAreNamedWithoutTheirParameters)
{
	EXPECT_EQ(placed("at::empty(c10::ArrayRef<long>, int)", nullptr, 0, false), "at::empty");
	EXPECT_EQ(placed("(anonymous namespace)::f(int)", nullptr, 0, false),
		  "(anonymous namespace)::f");
	EXPECT_EQ(placed("S::operator()(int) const", nullptr, 0, false), "S::operator()");
	EXPECT_EQ(placed("operator<<(A&, B<int> const&)", nullptr, 0, false), "operator<<");
	EXPECT_EQ(placed("f<void (int)>(long)", nullptr, 0, false), "f<void (int)>");
	EXPECT_EQ(placed("<A as B>::c", nullptr, 0, false), "<A as B>::c");
	EXPECT_EQ(placed("plain", nullptr, 0, false), "plain");
}
